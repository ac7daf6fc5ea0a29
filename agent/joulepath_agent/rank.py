"""One rank as the agent knows it: what the clocks tell of it, what is measured of it, and its report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from joulepath_agent.gpus.energy import EnergyTrace
from joulepath_agent.measuring.history import History, Measured
from joulepath_clocks.channel.words import Began, Came, RankNews, Told, unpack_marks
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.limits import Allowance
from joulepath_crds import MOST_SLOWDOWN, Arm, Coordinates, RankReport, RankState
from joulepath_rules import Plan
from joulepath_trainer.wire.messages import Hello
from joulepath_trainer.wire.parts import Gathering, total_of
from joulepath_trainer.wire.protocol import PAIR, WireError

__all__ = ["Rank"]

log = logging.getLogger(__name__)

_PLANS: Final = 4
"""Plans that are remembered: blocks of the one before may be told late."""

_SCHEDULES: Final = {
    "Schedule1F1B": "1F1B",
    "ScheduleGPipe": "GPipe",
    "Megatron1F1B": "1F1B",
    **{name: name for name in ("NoPipeline", "VaryingBackwards", "IterationsOnly")},
}


class Rank:
    """A rank that the clocks serve."""

    def __init__(self, came: Came, trace: EnergyTrace, budget: Budget = BUDGET) -> None:
        """Raises: WireError: Its hello can't be read, which the clocks have read before."""
        self.number, self.gpu_uuid, self.pod = came.rank, came.gpu_uuid, came.pod
        self.hello = Hello.decode(came.hello)
        self.trace = trace
        self.history = History(budget)
        self.news = RankNews(came.rank, 0, Arm.DEFAULT, RankState.OBSERVING, "", "", None, None, None, False)
        """The last that the clocks told."""
        self._stages = frozenset(self.hello.pipeline.stages)
        self._measuring = Allowance(budget.measuring_burst_s, budget.measuring_share, time.monotonic())
        self._said_refused = False
        self._slowed_by = ""
        """What the driver said last since the rank is slow."""
        self._gathering = Gathering()
        self._measured = Measured()

    def begin(self, began: Began) -> None:
        """An iteration has begun."""
        self.history.mark(unpack_marks(began.marks))
        spoiled, length = began.spoiled_before, began.length_before
        self.history.begin(began.iteration, began.applied, began.at_s, spoiled_before=spoiled, length_before=length)

    def record(self, message: bytes) -> None:
        """The trainer's record of an iteration, or a part of one; isn't even read where it wouldn't be measured.

        Raises:
            WireError: It is none, or of a stage that isn't this rank's.
        """
        if self.history.refused:
            return
        if not self.history.may_have(total_of(message) or 0):
            return
        record = self._gathering.take(message)
        if record is None:
            return
        told = {span.stage for span in record.spans} | {span.back[0] for span in record.spans if span.kind == PAIR}
        if not told <= self._stages:
            raise WireError("a record names a stage that isn't one of this rank's")
        self.history.record(record)

    def play(self, plan: Plan) -> None:
        """What it is told to play: blocks of a plan bear its hash."""
        clocks = tuple(clock for stage in plan.stages for clock in stage.clocks_mhz)
        self.history.plays = dict(list((dict(self.history.plays) | {plan.hash: clocks}).items())[-_PLANS:])

    @property
    def told(self) -> Told:
        """What the clocks are to know of what was measured."""
        history = self.history
        return Told(self.number, history.order, history.control_time_s, history.tail_s, history.usual_tail_s)

    def report(self, held_back_by: Callable[[], str] = str) -> RankReport:
        """What the operator is told; measures what is ready first. `held_back_by` is what the driver says of its GPU's
        clock, and is asked where the rank is slow."""
        self._measure()
        if (slowdown := min(self.history.pace.slowdown, MOST_SLOWDOWN)) > 1:
            self._slowed_by = held_back_by() or self._slowed_by
        else:
            self._slowed_by = ""
        history, hello, now = self.history, self.hello, self.news
        ranks, stages = hello.pipeline.ranks, hello.pipeline.stages
        return RankReport(
            rank=hello.rank,
            pod=self.pod.name,
            pod_uid=self.pod.uid,
            gpu_uuid=self.gpu_uuid,
            coordinates=Coordinates(
                data=hello.data,
                pipeline=ranks.index(hello.rank) if hello.rank in ranks else 0,
                tensor=hello.tensor,
            ),
            data_parallel=hello.data_parallel,
            tensor_parallel=hello.tensor_parallel,
            stages=stages,
            stage_count=hello.pipeline.stage_count,
            schedule=_SCHEDULES.get(hello.pipeline.schedule, "Recorded"),
            microbatches=hello.pipeline.microbatches,
            framework=hello.framework,
            lacks=hello.lacks,
            order=tuple(one.name if len(stages) == 1 else one.label for one in history.order),
            iteration=now.iteration,
            iteration_time_s=history.iteration_time_s,
            state=now.state,
            reason="; ".join(filter(None, (now.reason, history.refused)))
            or now.foreign
            or history.disturbed
            or history.capped,
            staged_hash=now.staged_hash,
            staged_at_iteration=now.staged_at_iteration,
            applied_hash=now.applied_hash,
            slowdown=slowdown,
            slowed_by=self._slowed_by,
            control_time_s=history.control_time_s,
            tail_s=history.tail_s or 0.0,
            timeline=self._measured.timeline,
            plan_timeline=self._measured.plan_timeline,
            instructions=self._measured.instructions,
            waits=self._measured.waits,
            blocks=tuple(block for block in history.blocks if block.hash == now.staged_hash),
        )

    def _measure(self) -> None:
        """Measures what is ready, unless that has taken too much of the thread that does it for all ranks."""
        if self._measuring.ready(time.monotonic()):
            begun_s = time.thread_time()
            if self.history.digest(self.trace.read):
                self._measured = self.history.measured()
            self._measuring.spend(time.thread_time() - begun_s)
        if self.history.refused and not self._said_refused:
            self._said_refused = True
            log.warning("rank %d of %s: %s", self.hello.rank, self.pod.name, self.history.refused)
