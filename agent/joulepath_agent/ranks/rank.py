"""One rank: its process, page, GPU, conductor and history, and its lease.

The lock of a rank is held for microseconds only: by the follower for each marker, by others to change its plan or to
end its lease.
"""

from __future__ import annotations

import copy
import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from joulepath_agent.gpus.energy import EnergyTrace
from joulepath_agent.gpus.lease import End, Lease
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.gpus.wish import Wish
from joulepath_agent.measuring.applied import Applied
from joulepath_agent.measuring.history import History, Measured
from joulepath_agent.peers.budget import BUDGET, Budget
from joulepath_agent.peers.limits import Allowance
from joulepath_agent.peers.peer import JobPod, Peer
from joulepath_agent.ranks.conductor import Conductor
from joulepath_agent.ranks.group import Group, Member
from joulepath_agent.ranks.lifetime import TimeToLive
from joulepath_agent.ranks.page import SharedPage
from joulepath_agent.ranks.progress import Progress, silence_limit_s
from joulepath_agent.ranks.reason import Obstacle, Reason
from joulepath_crds import Arm, Coordinates, JobPlanSpec, RankReport
from joulepath_trainer.wire.messages import Hello, IterationRecord
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent
from joulepath_trainer.wire.protocol import WireError

__all__ = ["Rank"]

log = logging.getLogger(__name__)

_SCHEDULES: Final = {"Schedule1F1B": "1F1B", "ScheduleGPipe": "GPipe"}


class Rank:
    """A rank that was accepted."""

    def __init__(
        self,
        hello: Hello,
        peer: Peer,
        page: SharedPage,
        pod: JobPod,
        setter: ClockSetter,
        trace: EnergyTrace,
        on_lease_end: Callable[[End], None],
        budget: Budget = BUDGET,
        group: Group | None = None,
        *,
        time_to_live: TimeToLive,
    ) -> None:
        """`group` is that of its tensor-parallel peers on this node; none unless given."""
        self.hello = hello
        self.peer = peer
        self.pod = pod
        self.setter = setter
        self.trace = trace
        self.alive = True
        self.page = page
        now = time.monotonic()
        self._budget = budget
        self._time_to_live = time_to_live
        self._stages = frozenset(hello.pipeline.stages)
        self.progress = Progress(self._stages, now)
        self.lease = Lease(setter, f"rank {hello.rank} of {pod.name}", on_lease_end)
        self._group, self._member = group or Group(), Member(self.lease.order)
        self.history = History(budget)
        self._markers = Allowance(budget.markers_burst, budget.markers_per_s, now)
        self._measuring = Allowance(budget.measuring_burst_s, budget.measuring_share, now)
        self._said_refused = False
        self._restage_at_s = now
        self._lock = threading.RLock()
        self._conductor = Conductor(
            hello.attempt, hello.pipeline.stages, setter.lag_up_s, most_slowdown=budget.most_slowdown
        )
        self._begun: Applied | None = None
        self._measured = Measured()

    # following

    def poll(self) -> None:
        """Looks at the page and acts on what the GPU has passed since. Called by the follower."""
        if self._group.due_s <= (now := time.monotonic()):
            self._group.look(now)
        marker = self.page.news()
        if marker is None:
            return
        now = time.monotonic()
        with self._lock:
            if not self.alive:
                return
            entries = self.page.take(marker) if self._markers.ready(now) else None
            self.progress.last_marker_s = now
            if entries is None:
                self._apply(self._conductor.lost())
                return
            self._markers.spend(len(entries))
            for entry in entries:
                self._pass(entry, now)

    def _pass(self, entry: MarkerEntry, now: float) -> None:
        conductor = self._conductor
        self.trace.computing = entry.event is MarkerEvent.BEGIN
        if entry.event is not MarkerEvent.STEP_BEGIN:
            self._apply(conductor.on_event(entry, now))
            self.history.mark(entry, now)
            self.progress.expect(entry, now)
            return
        spoiled = self._begun is not conductor.applied
        conductor.lag_up_s, conductor.expired = self.setter.lag_up_s, self._time_to_live.expired(now)
        history = self.history
        conductor.tail_s, conductor.usual_tail_s = history.tail_s, history.usual_tail_s
        conductor.control_time_s = history.control_time_s
        if now >= self._restage_at_s and conductor.order != self.history.order:
            conductor.order = self.history.order
            self._restage_at_s = now + self._budget.restage_s
            self._apply(conductor.restage())
        self._apply(conductor.on_event(entry, now))
        self._begun = conductor.applied
        self.history.begin(entry.iteration, conductor.applied, now, spoiled_before=spoiled)

    # plans and leases

    def set_plan(self, plan: JobPlanSpec | Reason | None) -> None:
        """The plan of its job as it is now, or why the one that is there isn't played."""
        with self._lock:
            if isinstance(plan, Reason):
                self._apply(self._conductor.withhold(plan))
                return
            wish = self._conductor.set_plan(plan)
            if plan is not None and self.setter.gpu.refused is not None:
                wish = self._conductor.stop(Reason(Obstacle.GPU_REFUSED, self.setter.gpu.refused, final=True))
            self._apply(wish, End.PLAN_CHANGED)

    def record(self, message: bytes) -> None:
        """The trainer's record of an iteration; isn't even read where it wouldn't be measured.

        Raises:
            WireError: It is none, or of a stage that isn't this rank's.
        """
        if self.history.refused:
            return
        record = IterationRecord.decode(message)
        if any(span.stage not in self._stages for span in record.spans):
            raise WireError("a record names a stage that isn't one of this rank's")
        self.history.record(record)

    def check_markers(self, now: float) -> None:
        """Ends the lease of a rank whose markers have stopped."""
        limit_s = silence_limit_s(self.history.iteration_time_s, self._budget.silence_s)
        with self._lock:
            silent_s = self.progress.silent_s(now)
            if self.lease.held and silent_s > limit_s:
                self.stop(Reason(End.MARKERS_STOPPED, f"none for {silent_s:.1f} s"))

    def stop(self, reason: Reason) -> None:
        """Default clocks: for as long as this plan lasts if the reason is final, else until the next block begins."""
        with self._lock:
            self._conductor.stop(reason)
            self._end_lease(reason.end)

    def close(self, end: End) -> None:
        """Ends the rank. Its clock is being reset when this returns."""
        with self._lock:
            if self.alive:
                self.alive = False
                self._end_lease(end)

    def process_gone(self) -> bool:
        """Whether its training process has ended."""
        with self._lock:
            return not self.alive or bool(select.select([self.peer.pidfd], [], [], 0)[0])

    def _apply(self, wish: Wish | None, end: End = End.PLAN_OVER) -> None:
        """Does what the conductor wishes; `end` is why the lease ends if it gives no reason."""
        if wish is None:
            return
        if self._conductor.applied.arm is Arm.DEFAULT:
            why = self._conductor.why
            self._end_lease(end if why is None else why.end)
        else:
            self.lease.hold()
            self._group.wish(self._member, wish, self._conductor.position, time.monotonic())

    def _end_lease(self, end: End) -> None:
        self.lease.end(end)
        self._group.leave(self._member, time.monotonic())

    # reporting

    @property
    def iteration(self) -> int:
        """The iteration that the GPU is at."""
        return self._conductor.iteration

    @property
    def arm(self) -> Arm:
        """What that iteration runs."""
        return self._conductor.applied.arm

    def report(self) -> RankReport:
        """What the operator is told; measures what is ready first."""
        history, hello = self.history, self.hello
        self._measure()
        ranks, stages = hello.pipeline.ranks, hello.pipeline.stages
        with self._lock:
            now = copy.copy(self._conductor)  # the follower must not wait while a report is made
        return RankReport(
            rank=hello.rank,
            pod=self.pod.name,
            pod_uid=self.pod.uid,
            gpu_uuid=self.setter.gpu.uuid,
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
            order=tuple(one.name if len(stages) == 1 else one.label for one in history.order),
            iteration=now.iteration,
            iteration_time_s=history.iteration_time_s,
            state=now.state,
            reason="; ".join(filter(None, (now.reason, history.refused)))
            or self.setter.foreign.told_lately(time.monotonic())
            or history.capped,
            staged_hash=now.staged_hash,
            staged_at_iteration=now.staged_at_iteration,
            applied_hash=now.applied_hash,
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
