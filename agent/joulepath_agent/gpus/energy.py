"""The energy counter of each active GPU, sampled.

The counter moves in steps, on real GPUs about every 100 ms: only its edges say when a joule was spent. The sampler
keeps the edges (time, joules, how uncertain the time is). It looks for them closely until they are known to come on a
beat; then one look anywhere between two edges tells the joules of the one before, one wake serves all GPUs, and only
every fiftieth edge is seen closely, after two looks at the pause before it, in which nothing moves. A counter without a
beat is looked at closely whenever an edge is due. Edges that weren't seen are withdrawn where the next one that is seen
shows that the beat was another one.

All of the last edges are kept, minutes of them: power by kind is told from them. Of older ones, one a second: blocks of
a large model's iterations may last an hour, and their joules need an edge near their begin and one near their end.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulepath_agent.gpus.rhythm import Move, Rhythm
from joulepath_clocks.gpus.nvml import GpuError

__all__ = ["Edges", "EnergyTrace", "Sampler", "Trace"]

log = logging.getLogger(__name__)

_POLL_S: Final = 0.005
_FINE_POLL_S: Final = 0.001
_FINE: Final = 8_000
_COARSE: Final = 20_000
_COARSE_S: Final = 1.0
_WIDTH: Final = 3
_IDLE_S: Final = 0.1
_SOONEST: Final = 0.15
_LATEST: Final = 0.75
"""Of the period: when the joules of an edge that isn't looked for are read after it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Edges of one energy counter: at `time_s[i]` it had counted `energy_j[i]` joules."""

    time_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    uncertainty_s: NDArray[np.float64]
    capped: tuple[tuple[float, int], ...] = ()
    """When the SM clock was seen below the clock that was ordered, held back by power or heat, and at how many MHz."""
    foreign_s: tuple[float, ...] = ()
    """When it was seen at a clock that somebody else had set."""

    def covers(self, begin_s: float, end_s: float) -> bool:
        """Whether joules can be told for every time in between."""
        return len(self.time_s) > 1 and bool(self.time_s[0] <= begin_s and end_s <= self.time_s[-1])

    def joules_at(self, time_s: float) -> float:
        """Joules counted at a time, interpolated between edges."""
        return float(np.interp(time_s, self.time_s, self.energy_j))


class Edges:
    """Edges as they come. One thread adds, another may read."""

    def __init__(self) -> None:
        self._fine, self._coarse = array("d"), array("d")
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._fine)

    @property
    def last_s(self) -> float:
        """Time of the last one."""
        return self._fine[-_WIDTH]

    def add(self, time_s: float, energy_j: float, uncertainty_s: float) -> None:
        """Takes one more."""
        with self._lock:
            self._fine.extend((time_s, energy_j, uncertainty_s))
            if len(self._fine) >= 2 * _FINE * _WIDTH:
                self._thin()

    def withdraw(self, since_s: float) -> None:
        """Those after a time are none."""
        with self._lock:
            kept = len(self._fine)
            while kept and self._fine[kept - _WIDTH] > since_s:
                kept -= _WIDTH
            del self._fine[kept:]

    def read(self) -> NDArray[np.float64]:
        """A copy: one row (time, joules, uncertainty) for each, oldest first."""
        with self._lock:  # a copy of bytes keeps other threads waiting for a fraction of a millisecond
            kept = self._coarse.tobytes() + self._fine.tobytes()
        return np.frombuffer(kept, dtype=np.float64).reshape(-1, _WIDTH)

    def _thin(self) -> None:
        for at in range(0, _FINE * _WIDTH, _WIDTH):
            if not self._coarse or self._fine[at] - self._coarse[-_WIDTH] >= _COARSE_S:
                self._coarse.extend(self._fine[at : at + _WIDTH])
        del self._fine[: _FINE * _WIDTH]
        del self._coarse[: max(0, len(self._coarse) - _COARSE * _WIDTH)]


class EnergyTrace:
    """The growing trace of one GPU."""

    def __init__(self, read_j: Callable[[], float], clock_s: Callable[[], float] = time.monotonic) -> None:
        """`read_j` reads the counter, in joules, or raises a GpuError."""
        self._read_j, self._clock_s = read_j, clock_s
        self._edges = Edges()
        self._capped: deque[tuple[float, int]] = deque(maxlen=1000)
        self._foreign_s: deque[float] = deque(maxlen=1000)
        self._last: tuple[float, float] | None = None
        self._rhythm = Rhythm()
        self._blind = False
        """Whether the next edge needn't be seen."""
        self._sure_s = 0.0
        """Until when the beat was found to be as it was learnt."""
        self.due_s = 0.0
        """From when on it is worth reading."""
        self.late_s = 0.0
        """When it is to be read at last."""

    def poll(self) -> None:
        """Reads the counter once and says when to read it again.

        Raises:
            GpuError: NVML doesn't tell.
        """
        before_s = self._clock_s()
        energy_j = self._read_j()
        now, rhythm = (before_s + self._clock_s()) / 2, self._rhythm
        last_s, last_j = self._last or (now, energy_j)
        edge = Move((now + last_s) / 2, (now - last_s) / 2)
        moved = energy_j != last_j
        if self._blind or (moved and rhythm.is_even and edge.off_s > rhythm.around(now)[0].off_s):
            self._infer(now, energy_j, moved=moved)
            return
        self._last = now, energy_j
        self.put_off(now + (_FINE_POLL_S if rhythm.period_s else _POLL_S))
        if moved:
            if not rhythm.see(edge):
                self._edges.withdraw(self._sure_s)
            self._sure_s = edge.at_s
            self._add(edge, energy_j)

    def _infer(self, now: float, energy_j: float, *, moved: bool) -> None:
        """Takes it that the last edge was when one was expected."""
        edge, after = self._rhythm.around(now)
        if self._rhythm.has_lost_count(now):
            self._last = now, energy_j
            self._begin_anew()
            self.put_off(now + _POLL_S)
        elif not edge.at_s + edge.off_s < now < after.at_s - after.off_s:
            self.put_off(now + 2 * after.off_s + _FINE_POLL_S)  # it may be of either side of an edge
        elif moved and edge.at_s > self._edges.last_s + self._rhythm.period_s / 2:
            self._last = now, energy_j
            self._add(edge, energy_j)
        else:  # it has kept still over an edge, or moved between two
            self._edges.withdraw(self._sure_s)
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._rhythm, self._blind = Rhythm(), False

    def _add(self, edge: Move, energy_j: float) -> None:
        self._edges.add(edge.at_s, energy_j, edge.off_s)
        rhythm = self._rhythm
        if not rhythm.period_s:
            return
        after = rhythm.next(edge)
        self._blind = not rhythm.must_see(after)
        if self._blind:
            # The joules of the one before an edge that is to be seen are read soon: what moves until then is off beat.
            latest = _SOONEST if rhythm.must_see(after, beats=1) else _LATEST
            self.due_s, self.late_s = (after.at_s + share * rhythm.period_s for share in (_SOONEST, latest))
        else:
            self.put_off(max(self.due_s, after.at_s - after.off_s - _FINE_POLL_S))

    def put_off(self, due_s: float) -> None:
        """It is to be read then, and not before."""
        self.due_s = self.late_s = due_s

    def read(self) -> Trace:
        """The edges so far."""
        edges = self._edges.read()
        return Trace(edges[:, 0], edges[:, 1], edges[:, 2], tuple(self._capped), tuple(self._foreign_s))

    def saw(self, at_s: float, clock_mhz: int, *, foreign: bool) -> None:
        """The SM clock was not the one ordered: somebody else has set it, or power or heat hold it back."""
        if foreign:
            self._foreign_s.append(at_s)
        else:
            self._capped.append((at_s, clock_mhz))


class Sampler:
    """One thread that samples all GPUs that have a rank."""

    def __init__(self, active: Callable[[], Iterable[EnergyTrace]]) -> None:
        self._active = active
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def start(self) -> None:
        """Starts sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def turn(self, now: float) -> float:
        """Reads what is due; when to turn next. A wake for one serves all that are worth reading by then."""
        next_s = now + _IDLE_S
        for trace in self._active():
            if trace.due_s <= now:
                try:
                    trace.poll()
                except GpuError as error:
                    trace.put_off(now + 1.0)
                    log.warning("%s; its energy isn't sampled for a second", error)
                except Exception:
                    trace.put_off(now + 1.0)
                    log.exception("sampling failed; trying again in a second")
            next_s = min(next_s, trace.late_s)
        return next_s

    def _run(self) -> None:
        while not self._stop.is_set():
            next_s = self.turn(time.monotonic())
            time.sleep(max(0.0003, next_s - time.monotonic()))
