"""One rank: its process, page, GPU, conductor and history, and its lease.

The lock of a rank is held for microseconds only: by the follower for each marker, by others to change its plan or to
end its lease.
"""

from __future__ import annotations

import copy
import fcntl
import logging
import mmap
import os
import select
import threading
import time
from collections.abc import Callable

from joulepath_agent.gpus.energy import EnergyTrace
from joulepath_agent.gpus.lease import End, silence_limit_s
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.gpus.wish import Wish
from joulepath_agent.measuring.applied import Applied
from joulepath_agent.measuring.history import History, Measured
from joulepath_agent.peers.peer import Peer, Placement
from joulepath_agent.ranks.conductor import Conductor
from joulepath_crds import Arm, Coordinates, JobPlanSpec, RankReport
from joulepath_trainer.wire import PAGE_BYTES, Entry, Event, Hello, IterationRecord, PageReader, WireError

__all__ = ["Rank", "make_page"]

log = logging.getLogger(__name__)

_FORGET = 1.05
_MOST_AT_ONCE = 256
"""Markers taken at one look: an honest rank passes a handful, and the follower serves all ranks of the node."""
_SURE = 0.9
"""Share of an instruction's shortest duration in which its end isn't looked for: clocks, and so durations, change."""
_SCHEDULES = {"Schedule1F1B": "1F1B", "ScheduleGPipe": "GPipe"}


def make_page() -> int:
    """A shared page of a fixed size as a file descriptor."""
    fd = os.memfd_create("joulepath-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Rank:
    """A rank that was accepted."""

    def __init__(
        self,
        hello: Hello,
        peer: Peer,
        placement: Placement,
        setter: ClockSetter,
        trace: EnergyTrace,
        on_lease_end: Callable[[End], None],
    ) -> None:
        self.hello = hello
        self.peer = peer
        self.placement = placement
        self.setter = setter
        self.trace = trace
        self.page_fd = make_page()
        """For the peer; the endpoint closes it when it has been sent."""
        self.alive = True
        self.last_marker_s = time.monotonic()
        self.expected_s = 0.0
        """When the next marker is due, as far as known; on the monotonic clock."""
        self._map = mmap.mmap(self.page_fd, PAGE_BYTES)
        view = memoryview(self._map)
        PageReader.format(view)
        self._page = PageReader(view)
        self._passed = 0
        self._lock = threading.RLock()
        self._on_lease_end = on_lease_end
        self._conductor = Conductor(hello.attempt, hello.pipeline.stages, setter.lag_up_s)
        self._begun: Applied | None = None
        self._begun_at_s = 0.0
        self._seconds: dict[tuple[int, str], float] = {}
        self.leased = False
        self.history = History()
        self._measured = Measured()

    # following

    def poll(self) -> None:
        """Looks at the page and acts on what the GPU has passed since. Called by the follower."""
        marker = self._page.marker
        if marker == self._passed:
            return
        now = time.monotonic()
        with self._lock:
            if not self.alive:
                return
            entries = self._entries(marker)
            self._passed, self.last_marker_s = marker, now
            if entries is None:
                self._apply(self._conductor.lost())
                return
            for entry in entries:
                self._pass(entry, now)

    def _entries(self, marker: int) -> list[Entry] | None:
        count = marker - self._passed
        if not 0 < count <= _MOST_AT_ONCE:
            return None
        entries = [self._page.entry(sequence) for sequence in range(self._passed + 1, marker + 1)]
        return None if any(entry is None for entry in entries) else [e for e in entries if e is not None]

    def _pass(self, entry: Entry, now: float) -> None:
        conductor = self._conductor
        if entry.event is not Event.STEP_BEGIN:
            self._apply(conductor.on_event(entry, now))
            self.history.mark(entry, now)
            self._predict(entry, now)
            return
        spoiled = self._begun is not conductor.applied
        conductor.lag_up_s = self.setter.lag_up_s
        conductor.tail_s, conductor.control_time_s = self.history.tail_s, self.history.control_time_s
        if conductor.order != self.history.order:
            conductor.order = self.history.order
            self._apply(conductor.restage())
        self._apply(conductor.on_event(entry, now))
        self._begun = conductor.applied
        self.history.begin(entry.iteration, conductor.applied, now, spoiled_before=spoiled)

    def _predict(self, entry: Entry, now: float) -> None:
        """The end of an instruction is due as long after its begin as the shortest of its kind lately took."""
        what = (entry.stage, entry.kind)
        if entry.event is Event.BEGIN:
            self._begun_at_s = now
            self.expected_s = now + _SURE * self._seconds.get(what, 0.0)
        else:
            if entry.event is Event.END and entry.stage in self.hello.pipeline.stages:
                took_s = now - self._begun_at_s
                self._seconds[what] = min(took_s, self._seconds.get(what, took_s) * _FORGET)
            self.expected_s = now

    # plans and leases

    def set_plan(self, plan: JobPlanSpec | None) -> None:
        """The plan of its job as it is now."""
        with self._lock:
            wish = self._conductor.set_plan(plan)
            if plan is not None and self.setter.gpu.refused is not None:
                wish = self._conductor.refuse(f"GpuRefused: {self.setter.gpu.refused}")
            self._apply(wish, End.PLAN_CHANGED)

    def record(self, record: IterationRecord) -> None:
        """The trainer's record of an iteration; raises WireError."""
        if any(span.stage not in self.hello.pipeline.stages for span in record.spans):
            raise WireError(f"a record names a stage that isn't one of {self.hello.pipeline.stages}")
        self.history.record(record)

    def check_markers(self, now: float) -> None:
        """Ends the lease of a rank whose markers have stopped."""
        limit_s = silence_limit_s(self.history.iteration_time_s)
        with self._lock:
            if self.leased and now - self.last_marker_s > limit_s:
                self._conductor.suspend(f"{End.MARKERS_STOPPED}: none for {now - self.last_marker_s:.1f} s")
                self._end(End.MARKERS_STOPPED)

    def suspend(self, end: End) -> None:
        """Default clocks until the next block begins."""
        with self._lock:
            self._conductor.suspend(f"{end}: see the agent's log")
            self._end(end)

    def refuse(self, end: End, reason: str) -> None:
        """Default clocks for as long as this plan lasts."""
        with self._lock:
            self._conductor.refuse(f"{end}: {reason}")
            self._end(end)

    def close(self, end: End) -> None:
        """Ends the rank. Its clock is being reset when this returns."""
        with self._lock:
            if self.alive:
                self.alive = False
                self._end(end)

    def process_gone(self) -> bool:
        """Whether its training process has ended."""
        with self._lock:
            return not self.alive or bool(select.select([self.peer.pidfd], [], [], 0)[0])

    def _apply(self, wish: Wish | None, end: End = End.PLAN_OVER) -> None:
        if wish is None:
            return
        if self._conductor.applied.arm is Arm.DEFAULT:
            code = self._conductor.reason.partition(":")[0]
            self._end(End(code) if code in set(End) else end)
        else:
            self.leased = True
            self.setter.wish(wish)

    def _end(self, end: End) -> None:
        if self.leased:
            self.leased = False
            self.setter.release()
            log.info("rank %d of %s: lease ended, %s", self.hello.rank, self.placement.pod, end)
            self._on_lease_end(end)

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
        if history.digest(self.trace.read):
            self._measured = history.measured()
        ranks, stages = hello.pipeline.ranks, hello.pipeline.stages
        with self._lock:
            now = copy.copy(self._conductor)  # the follower must not wait while a report is made
        return RankReport(
            rank=hello.rank,
            pod=self.placement.pod,
            pod_uid=self.placement.pod_uid,
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
            order=tuple(step.name for step in history.order),
            iteration=now.iteration,
            iteration_time_s=history.iteration_time_s,
            state=now.state,
            reason=now.reason or history.capped,
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
