"""Setting clocks: one thread for each GPU, so that a call that blocks delays no other GPU.

The same thread follows the rank that runs there, since to hand an order over would take longer than to decide on it: it
looks when the rank wants to be looked at, and orders what comes of that. The latest wish wins; a clock that is already
ordered isn't ordered again (each order may cost the GPU a pause). The setter holds a lease of the GPU, by the warden,
from before its first order until `release`.

How long a switch takes is measured only where a wish asks for it: sweeps do, whose clocks stay for long. Under a plan
the next wish ends a measurement, so that only short lags would count, and raises that go by them would come too late.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from joulepath_clocks.gpus.foreign import Foreign, OnForeignClock
from joulepath_clocks.gpus.lags import Lags, LagSummary, Switch, UpLags, Way
from joulepath_clocks.gpus.leasing import Lessor
from joulepath_clocks.gpus.nvml import Gpu, GpuError
from joulepath_clocks.gpus.settled import Settled
from joulepath_clocks.gpus.wish import DEFAULT, Wish
from joulepath_clocks.priority import prefer_thread

__all__ = ["ClockSetter", "Follow"]

log = logging.getLogger(__name__)

Follow = Callable[[float], float]
"""Looks at a rank, at a time of the monotonic clock; when to look again."""

_PR_SET_TIMERSLACK: Final = 29
_LONGEST_PAUSE_S: Final = 0.5
_SHORT_PAUSE_S: Final = 0.005
_SHORT_PAUSE_OF_PEERS_S: Final = 0.0005
"""Nobody is roused from a pause that is shorter: to wait for a lock takes half as much of a core again as to sleep."""
_BREATH_S: Final = 0.00002
"""Also where the next look is due at once: nobody runs on and on at such a priority."""
_LAG_POLL_S: Final = 0.0005
_LAG_LIMIT_S: Final = 0.5
_LAG_BLUR_S: Final = 0.002
_LAG_BLUR: Final = 0.2
"""A switch that came in force somewhere in a longer gap between two looks isn't counted: the host was away, not the
GPU late."""
_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 2.0


class ClockSetter:
    """Orders the clock of one GPU."""

    def __init__(self, gpu: Gpu, lessor: Lessor, on_foreign_clock: OnForeignClock = OnForeignClock.REASSERT) -> None:
        self.gpu = gpu
        self.settled = Settled(gpu.supported_clocks_mhz)
        self.foreign = Foreign(on_foreign_clock)
        self.sets = 0
        self.failures = 0
        self.on_failure: Callable[[str], None] = lambda _: None
        """Called from the setter's thread with the reason, after the clock has been released."""
        self.on_no_lease: Callable[[str], None] = lambda _: None
        """Called so where a clock isn't ordered, since there is no lease of it."""
        self.on_yield: Callable[[str], None] = lambda _: None
        """Called where a clock isn't ordered, since somebody else sets it; from any thread, perhaps several times."""
        self.follow: Follow | None = None
        """The rank that runs there, while there is one."""
        self.has_peers = False
        """Whether other ranks raise this clock, too, and can't wait for long."""
        self.turned_at_s = time.monotonic()
        """When the thread was last there to look and to order."""
        self._lessor = lessor
        self._leased = False
        self._lock = threading.Lock()
        self._roused = threading.Lock()
        """Released to rouse the thread; held by it else."""
        self._roused.acquire()
        self._wish: Wish | None = None
        self._done_now = True
        self._again = False
        self._releasing = False
        self._running = True
        self._ordered_mhz = DEFAULT
        self._ordered_at_s = -math.inf
        self._stuck_since_s = math.inf
        self._called_at_s = math.inf
        self._lags = Lags()
        self._thread = threading.Thread(target=self._run, name=f"clock-{gpu.index}", daemon=True)
        self._thread.start()

    @property
    def ordered_mhz(self) -> int:
        """The clock that was ordered last; 0 is default clocks."""
        return self._ordered_mhz

    @property
    def ordered_at_s(self) -> float:
        """When that was, on the monotonic clock."""
        return self._ordered_at_s

    @property
    def leased(self) -> bool:
        """Whether its clock may be locked."""
        return self._leased

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def stuck_s(self, now_s: float) -> float:
        """Seconds for which a clock that was to be released hasn't been, or an order hangs; below 0 if neither is."""
        return now_s - min(self._stuck_since_s, self._called_at_s)

    @property
    def settling_s(self) -> float:
        """How long after an order its clock is in force, beyond doubt."""
        return self._lags.settling_s

    @property
    def lags_up(self) -> UpLags:
        """The lags that raises go by."""
        return self._lags.up

    def lag(self) -> LagSummary | None:
        """The lags measured; None until there is one in each direction."""
        return self._lags.summary

    def begin_with(self, way: Way, lags_s: Iterable[tuple[int, tuple[float, ...]]]) -> None:
        """Takes over lags that a doctor has measured, by the clock ordered, while none has been measured here."""
        self._lags.begin_with(way, lags_s)

    def wish(self, wish: Wish) -> bool:
        """Replaces the wish, and returns at once; False where the clock is being released, and nothing else heard."""
        own = threading.get_ident() == self._thread.ident  # others may wish while an order is under way
        with self._lock:
            taken = not self._releasing
            if taken:
                self._wish, self._done_now = wish, own and wish.now_mhz == self._ordered_mhz
        self.rouse()
        return taken

    def contradict(self, ordered_mhz: int, seen_mhz: int) -> None:
        """Takes notice that a clock ordered isn't in force any more: it is ordered again, or yielded."""
        with self._lock:
            if not self._leased or self._releasing or self._ordered_mhz != ordered_mhz:
                return
            again = self._again = self.foreign.decide(ordered_mhz, seen_mhz, time.monotonic())
        self.rouse()
        log.warning("%s: %s", self.gpu.uuid, self.foreign.told_lately(time.monotonic()))
        if not again:
            self.release()
            self.on_yield(self.foreign.told)

    def release(self) -> None:
        """Ends all wishes: default clocks at once, then no lease. Returns at once."""
        self._releasing = True
        self.rouse()

    def rouse(self) -> None:
        """Has the thread turn now, be it that it was to pause."""
        if threading.get_ident() != self._thread.ident:
            with contextlib.suppress(RuntimeError):  # it is roused already
                self._roused.release()

    def close(self, timeout_s: float) -> bool:
        """Releases and ends the thread; whether that was done within the time. Until then it keeps trying."""
        self.release()
        self._running = False
        self.rouse()
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive() and not self._leased

    def _run(self) -> None:
        if not prefer_thread():
            log.info("no real-time priority: on a host whose cores are busy, this GPU's clock is switched late")
        # The default of 50 us would add to every pause.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
        while True:
            look_at_s = self._look()
            due_at_s = self._due_at_s()
            if due_at_s > (now := time.monotonic()):
                if not self._running:
                    return
                self._pause(max(_BREATH_S, min(due_at_s, look_at_s, now + _LONGEST_PAUSE_S) - now))
                continue
            try:
                self._do_what_is_due()
            except Exception as error:
                log.exception("setting the clock of %s failed; the GPU returns to its default clocks", self.gpu.uuid)
                self.release()
                with contextlib.suppress(Exception):  # what has failed may fail there as well
                    self.on_failure(repr(error))
                time.sleep(_RETRY_S)

    def _pause(self, pause_s: float) -> None:
        if pause_s < (_SHORT_PAUSE_OF_PEERS_S if self.has_peers else _SHORT_PAUSE_S):
            time.sleep(pause_s)
        else:
            self._roused.acquire(timeout=pause_s)

    def _look(self) -> float:
        """Follows the rank; when to do so again."""
        now = self.turned_at_s = time.monotonic()
        follow = self.follow
        return math.inf if follow is None else follow(now)

    @property
    def is_due(self) -> bool:
        """Whether there is something to be done now."""
        return self._due_at_s() == -math.inf

    def _due_at_s(self) -> float:
        """When there is something to be done next."""
        wish = self._wish
        if self._releasing or self._again or (wish is not None and not self._done_now):
            return -math.inf
        return math.inf if wish is None else wish.later_at_s

    def _do_what_is_due(self) -> None:
        if self._releasing:
            self._release_now()
        elif self._again:
            self._again = False
            if self._leased:
                self._order(self._ordered_mhz, False)
        else:
            with self._lock:
                target_mhz, measure = self._take()
            if target_mhz != self._ordered_mhz:
                self._order(target_mhz, measure)

    def _take(self) -> tuple[int, bool]:
        wish = self._wish
        if wish is None:
            return self._ordered_mhz, False
        if not self._done_now:
            self._done_now = True
            if wish.later_mhz is None:
                self._wish = None
            return wish.now_mhz, wish.measure
        self._wish = None
        return (self._ordered_mhz if wish.later_mhz is None else wish.later_mhz), wish.measure

    def _order(self, target_mhz: int, measure: bool) -> None:
        switch = self._switch_to(target_mhz) if measure else None
        if target_mhz != DEFAULT and self.foreign.yields(time.monotonic()):
            self.on_yield(self.foreign.told)
            return
        if target_mhz != DEFAULT and not self._leased:
            if refused := self._lessor.take(self.gpu.uuid):
                self.on_no_lease(refused)
                return
            self._leased = True
        begun = time.monotonic()
        try:
            self._call(target_mhz)
        except GpuError as error:
            self.failures += 1
            log.error("%s; the GPU returns to its default clocks", error)
            self.release()
            self._release_now()
            self.on_failure(str(error))
            return
        self._ordered_mhz, self._ordered_at_s = target_mhz, begun
        self.sets += 1
        if switch is not None:
            self._lags.add(switch.way, target_mhz, self._measured_lag_s(switch, begun))

    def _call(self, clock_mhz: int) -> None:
        self._called_at_s = time.monotonic()
        try:
            self.gpu.reset() if clock_mhz == DEFAULT else self.gpu.lock(clock_mhz)
        finally:
            self._called_at_s = math.inf

    def _switch_to(self, target_mhz: int) -> Switch | None:
        """The switch to be measured; None where that tells nothing."""
        settled = self.settled
        reached_mhz = settled.reached_mhz
        switch = Switch.between(
            reached_mhz(self._ordered_mhz), reached_mhz(target_mhz), settled.step_mhz, settled.spread_mhz
        )
        if switch is None or not self._lags.are_worth_measuring(switch.way):
            return None
        # A clock that is there already, because the switch before this one isn't in force yet, tells no lag.
        return switch if self._is_over(switch) is False else None

    def _measured_lag_s(self, switch: Switch, begun_s: float) -> float | None:
        """Looks until the clock is there, the next wish is due or it has taken too long; None unless seen sharply.

        It came in force between two looks, as likely as not in the middle.
        """
        looked_s = time.monotonic()
        while (now := time.monotonic()) < begun_s + _LAG_LIMIT_S and self._due_at_s() > now:
            there = self._is_over(switch)
            if there is not False:
                sharp = now - looked_s <= max(_LAG_BLUR_S, _LAG_BLUR * (now - begun_s))
                return (looked_s + now) / 2 - begun_s if there and sharp else None
            looked_s = now
            self._look()
            time.sleep(_LAG_POLL_S)
        return None

    def _is_over(self, switch: Switch) -> bool | None:
        """Whether the GPU has switched; None if it doesn't say."""
        try:
            return switch.is_over(self.gpu.sm_clock_mhz())
        except GpuError as error:
            log.warning("%s; this switch isn't measured", error)
            return None

    def _release_now(self) -> None:
        """Keeps trying until the clock is reset; a release that was asked for never gets lost."""
        retry_s = _RETRY_S
        while self._leased:
            try:
                self._call(DEFAULT)
                self.sets += 1
                self._leased = False
                self._lessor.give_back(self.gpu.uuid)
            except GpuError as error:
                self.failures += 1
                self._stuck_since_s = min(self._stuck_since_s, time.monotonic())
                log.error("%s; trying again in %.1f s", error, retry_s)
                self.on_failure(str(error))
                time.sleep(retry_s)
                retry_s = min(_LONGEST_RETRY_S, 2 * retry_s)
        self._stuck_since_s = math.inf
        self._lags.begin_anew()
        with self._lock:
            self._ordered_mhz, self._ordered_at_s = DEFAULT, time.monotonic()
            self._wish, self._releasing, self._again = None, False, False
