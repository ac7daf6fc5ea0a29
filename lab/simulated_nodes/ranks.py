"""The ranks of one stage on one node: the clocks' own conductor, what its agent measures, and its ranks' reports.

All ranks of a stage do alike, so one conductor stands for those of a node. Only begins of iterations are played: which
plan is staged and in force follows from them, what is measured meanwhile from the truth. The conductor sees times of
the truth, not of the machine: an iteration that is played late wasn't slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from joulepath_agent.part import part_of
from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import MOST_BLOCKS, Arm, BlockReport, Coordinates, InstructionMeasurement, JobPlanSpec, RankReport
from joulepath_rules import Applied, Instruction
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent
from simulated_nodes.job import Job
from simulated_nodes.truth import Iteration, Truth

__all__ = ["LAG_S", "Ranks"]

LAG_S: Final = 0.01
_ORDER_KNOWN: Final = 2
_TIMED: Final = 10
"""Iterations after which the order is known, and times at default clocks are."""


class Ranks:
    """Of a node, those of one stage, by their number and place."""

    def __init__(
        self, job: Job, node: str, stage: int, truth: Truth, members: Sequence[tuple[int, Coordinates]]
    ) -> None:
        self._truth, self._stage = truth, stage
        self._order = truth.order(stage)
        self._conductor = Conductor(0, (stage,), UpLags(LAG_S))
        self._plan: JobPlanSpec | Reason | None = None
        self._now_s = 0.0
        self._length = 0
        """Iterations of the block that runs, so far."""
        self._clocks: dict[int, tuple[InstructionMeasurement, ...]] = {}
        self._blocks: list[BlockReport] = []
        self._measured: dict[str, Any] = {}
        self._reports = tuple(
            RankReport(
                rank=rank,
                pod=f"{job.name}-{node}",
                pod_uid=job.pod(node),
                gpu_uuid=f"GPU-{node}-{rank % 8}",
                coordinates=place,
                data_parallel=job.data_parallel,
                tensor_parallel=job.tensor_parallel,
                stages=(stage,),
                stage_count=job.stages,
                schedule="1F1B",
                microbatches=job.microbatches,
                framework="torch 2.9.1, megatron-core 0.16.1",
            )
            for rank, place in members
        )

    @property
    def staged(self) -> str | None:
        """Hash of the plan that is ready here."""
        return self._conductor.staged_hash

    @property
    def applied(self) -> str | None:
        """Hash of the plan that is in force here."""
        return self._conductor.applied_hash

    def set_plan(self, plan: JobPlanSpec | Reason | None) -> bool:
        """The plan of their job as the agent has it now; whether it is another one than before."""
        if plan == self._plan:
            return False
        self._plan = plan
        if isinstance(plan, Reason):
            self._conductor.withhold(plan)
        else:
            self._conductor.set_plan(None if plan is None else part_of(plan, (self._stage,)))
        self._tell()
        return True

    def begin(self, iteration: int) -> None:
        """An iteration begins, and the one before it is over."""
        before = self._conductor.applied
        took = self._iteration(before)
        self._now_s += took.period_s
        self._length += 1
        self._conductor.on_event(MarkerEntry(0, iteration, MarkerEvent.STEP_BEGIN, "", 0, 0), self._now_s)
        if self._conductor.applied != before:
            self._close(before, took)
            self._length = 0
        if iteration == _ORDER_KNOWN:
            self._measured["order"] = self._order
            self._conductor.order = tuple(Instruction.parse(name, self._stage) for name in self._order)
            self._conductor.restage()
        if iteration == _TIMED:
            usual = self._truth.at_clock(0)
            self._conductor.control_time_s = usual.period_s
            self._conductor.tail_s = self._conductor.usual_tail_s = self._truth.tail_s
            times = {"control_time_s": usual.period_s, "tail_s": self._truth.tail_s}
            self._measured |= {"timeline": usual.timeline[self._stage], **times}
            self._know(0)
        if self._measured:
            self._measured["iteration_time_s"] = took.period_s
        self._tell()

    @property
    def reports(self) -> tuple[RankReport, ...]:
        """One of each rank; the same object for as long as nothing changes."""
        return self._reports

    def _iteration(self, applied: Applied) -> Iteration:
        if applied.arm is Arm.PLAN and isinstance(self._plan, JobPlanSpec) and self._plan.hash == applied.hash:
            return self._truth.under(self._plan)
        if applied.clock_mhz is None and isinstance(self._plan, JobPlanSpec) and self._plan.sweep is not None:
            return self._truth.at_clock(self._plan.sweep.clocks_mhz[applied.block])  # to and fro: switches are free
        return self._truth.at_clock(applied.clock_mhz or 0)

    def _close(self, applied: Applied, took: Iteration) -> None:
        """Measures a block that is whole, as the agent does: without its first iteration, and a pair's last."""
        if applied.block < 0 or self._length != applied.length:
            return
        if applied.arm is Arm.SWEEP and applied.clock_mhz is not None:
            self._know(applied.clock_mhz)
        if applied.arm is Arm.PLAN:
            self._measured["plan_timeline"] = took.timeline[self._stage]
        self._blocks.append(
            BlockReport(
                hash=applied.hash,
                block=applied.block,
                arm=applied.arm,
                iterations=self._length - (1 if applied.arm is Arm.SWEEP else 2),
                iteration_time_s=took.period_s,
                iteration_time_deviation_s=0.001 * took.period_s,
                energy_per_iteration_j=took.energy_j[self._stage],
                switched=applied.arm is Arm.SWEEP and applied.clock_mhz is None,
            )
        )

    def _know(self, clock_mhz: int) -> None:
        self._clocks[clock_mhz] = self._truth.measured(self._stage, clock_mhz)
        known = sorted(self._clocks)
        self._measured["instructions"] = tuple(one for clock in known for one in self._clocks[clock])
        self._measured["waits"] = tuple(self._truth.waiting(clock) for clock in known)

    def _tell(self) -> None:
        """Makes the reports anew."""
        now = self._conductor
        told: Mapping[str, Any] = {
            **self._measured,
            "iteration": now.iteration,
            "state": now.state,
            "reason": now.reason,
            "staged_hash": now.staged_hash,
            "staged_at_iteration": now.staged_at_iteration,
            "applied_hash": now.applied_hash,
            "blocks": tuple(one for one in self._blocks[-MOST_BLOCKS:] if one.hash == now.staged_hash),
        }
        self._reports = tuple(report.model_copy(update=told) for report in self._reports)
