"""One rank: its process, page, GPU, conductor and lease.

The lock of a rank is held for microseconds only: by the thread of its GPU for each marker, by others to change
its plan or to end its lease.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from joulepath_clocks.channel.words import (
    MOST_MARKS,
    Began,
    Came,
    ClocksWord,
    Mark,
    RankNews,
    Recorded,
    Told,
    pack_marks,
)
from joulepath_clocks.gpus.lease import End, Lease
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.gpus.wish import Wish
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.limits import Allowance
from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.group import Group, Member
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.progress import Progress, silence_limit_s
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_rules import Applied, Arm, Length, Plan
from joulepath_trainer.wire.messages import Hello
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["Rank"]

log = logging.getLogger(__name__)

_FAILED_PAUSE_S: Final = 0.02
_FAILED: Final = "this rank couldn't be followed, see the log of the clocks"


class Rank:
    """A rank that was accepted."""

    def __init__(
        self,
        came: Came,
        hello: Hello,
        peer: Peer,
        page: SharedPage,
        setter: ClockSetter,
        on_lease_end: Callable[[End], None],
        say: Callable[[ClocksWord], object],
        *,
        time_to_live: TimeToLive,
        budget: Budget = BUDGET,
        group: Group | None = None,
    ) -> None:
        """What happens to it is said by `say`; `group` is that of its tensor-parallel peers on this node, if any."""
        self.came = came
        self.number, self.pod = came.rank, came.pod
        self.hello = hello
        self.peer = peer
        self.setter = setter
        self.alive = True
        self.page = page
        self.computing = False
        """Whether it runs an instruction now, as far as is known."""
        now = time.monotonic()
        self._say = say
        self._budget = budget
        self._time_to_live = time_to_live
        self.progress = Progress(frozenset(hello.pipeline.stages), now)
        self.lease = Lease(setter, f"rank {hello.rank} of {came.pod.name}", on_lease_end)
        self._group, self._member = group or Group(), Member(self.lease.order)
        self._passed: list[Mark] = []
        """At the last look."""
        self.marks: list[Mark] = []
        """Of the iteration that runs, to be told when the next one begins."""
        self._markers = Allowance(budget.markers_burst, budget.markers_per_s, now)
        self._iterations = Allowance(budget.iterations_burst, budget.iterations_per_s, now)
        self._untold: tuple[int, Applied, float, bool, Length, list[Mark]] | None = None
        """Of the last iteration that has begun."""
        self._told = Told(came.rank, (), 0.0, None, 0.0)
        self._restage_at_s = self._looked_at_s = now
        self._lock = threading.RLock()
        self._conductor = Conductor(
            hello.attempt, hello.pipeline.stages, setter.lags_up, most_slowdown=budget.most_slowdown
        )
        self._begun: Applied | None = None

    # following

    def follow(self, now: float) -> float:
        """Looks at the page and acts on what the GPU has passed since; when to look next. Called by the setter."""
        try:
            if self._passed or self._untold:
                self._remember()
            if self._group.due_s <= now:
                self._group.look(now)
            if (marker := self.page.news()) is not None:
                self._follow(marker, now)
            self._looked_at_s = now
            if self._passed or self._untold:
                if self.setter.is_due:
                    return now
                self._remember()
            return self.progress.look_at_s(now)
        except Exception:
            log.exception("following rank %d of %s failed", self.hello.rank, self.pod.name)
            self.stop(Reason(End.FOLLOWER_FAILED, _FAILED, final=True))
            return now + _FAILED_PAUSE_S

    def _follow(self, marker: int, now: float) -> None:
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
        self.computing = entry.event is MarkerEvent.BEGIN
        if entry.event is not MarkerEvent.STEP_BEGIN:
            # It began after the last look, perhaps at once: what is ordered so long after a begin is never late.
            self._apply(conductor.on_event(entry, self._looked_at_s if self.computing else now))
            self._passed.append((entry, now))
            return
        self._remember()
        if not self._iterations.ready(now):
            self._apply(conductor.lost())
            return
        self._iterations.spend(1)
        length, spoiled = conductor.length, self._begun is not (conductor.cut or conductor.applied)
        told = self._told
        conductor.lags_up, conductor.expired = self.setter.lags_up, self._time_to_live.expired(now)
        conductor.tail_s, conductor.usual_tail_s = told.tail_s, told.usual_tail_s
        conductor.control_time_s = told.control_time_s
        if now >= self._restage_at_s and conductor.order != told.order:
            conductor.order = told.order
            self._restage_at_s = now + self._budget.restage_s
            self._apply(conductor.restage())
        self._apply(conductor.on_event(entry, now))
        self._begun = conductor.applied
        self.progress.passed(entry, self.setter.ordered_mhz, now)
        self._untold = entry.iteration, conductor.applied, now, spoiled, length, self.marks
        self.marks = []

    def _remember(self) -> None:
        """What the order of a clock needn't wait for."""
        self.setter.has_peers = self._group.shared
        self.progress.raise_in_s = self._conductor.raise_in_s(self.computing)
        for entry, at_s in self._passed:
            self.progress.passed(entry, self.setter.ordered_mhz, at_s)
        self.marks.extend(self._passed[: max(0, MOST_MARKS - len(self.marks))])
        self._passed.clear()
        if self._untold is not None:
            iteration, applied, at_s, spoiled, length, marks = self._untold
            self._untold = None
            self._say(Began(self.number, iteration, applied, at_s, spoiled, length, pack_marks(marks)))

    # plans and leases

    def set_plan(self, plan: Plan | Reason | None) -> None:
        """The plan of its job as it is now, or why the one that is there isn't played."""
        with self._lock:
            try:
                self._set_plan(plan)
            except Exception:
                log.exception("a plan of rank %d of %s can't be played", self.hello.rank, self.pod.name)
                self.stop(Reason(Obstacle.PLAN_UNREADABLE, "see the log of the clocks", final=True))

    def _set_plan(self, plan: Plan | Reason | None) -> None:
        if isinstance(plan, Reason):
            self._apply(self._conductor.withhold(plan))
            return
        wish = self._conductor.set_plan(plan)
        if plan is not None and self.setter.gpu.refused is not None:
            wish = self._conductor.stop(Reason(Obstacle.GPU_REFUSED, self.setter.gpu.refused, final=True))
        self._apply(wish, End.PLAN_CHANGED)

    def learn(self, told: Told) -> None:
        """Takes what was measured of it."""
        self._told = told

    def record(self, message: bytes) -> None:
        """The trainer's record of an iteration, which nobody reads here."""
        self._say(Recorded(self.number, message))

    def check_markers(self, now: float) -> None:
        """Ends the lease of a rank whose markers have stopped."""
        limit_s = silence_limit_s(self.progress.iteration_time_s, self._budget.silence_s)
        with self._lock:
            silent_s = self.progress.silent_s(now)
            if self.lease.held and silent_s > limit_s:
                try:
                    self._conductor.fall_silent(Reason(End.MARKERS_STOPPED, f"none for {silent_s:.1f} s"))
                finally:
                    self._end_lease(End.MARKERS_STOPPED)

    def stop(self, reason: Reason) -> None:
        """Default clocks: for as long as this plan lasts if the reason is final, else until the next block begins."""
        with self._lock:
            try:
                self._conductor.stop(reason)
            finally:
                self._end_lease(reason.end)

    def close(self, end: End) -> None:
        """Ends the rank. Its clock is being reset when this returns."""
        with self._lock:
            if self.alive:
                self.alive = False
                self._end_lease(end)

    def process_gone(self) -> bool:
        """Whether its training process is known to have ended."""
        with self._lock:
            pidfd = self.peer.pidfd
            return not self.alive or (pidfd is not None and bool(select.select([pidfd], [], [], 0)[0]))

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

    # telling

    @property
    def news(self) -> RankNews:
        """How it is now."""
        foreign = self.setter.foreign.told_lately(time.monotonic())
        now = self._conductor
        with self._lock:  # for as long as it takes to name these: its GPU's thread may wait
            return RankNews(
                rank=self.number,
                iteration=now.iteration,
                arm=now.applied.arm,
                state=now.state,
                reason=now.reason,
                foreign=foreign,
                staged_hash=now.staged_hash,
                staged_at_iteration=now.staged_at_iteration,
                applied_hash=now.applied_hash,
                leased=self.lease.held,
            )
