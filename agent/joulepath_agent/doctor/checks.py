"""What is measured on one GPU: each a function of the hold on it, and of the load where one is needed.

Where something can't be measured, that is a NotMeasuredError, GpuError or LoadError; where all is to end, StoppedError.
"""

from __future__ import annotations

import itertools
import math
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median, quantiles
from typing import Final

from joulepath_agent.doctor import board
from joulepath_agent.doctor.crossing import switch_of
from joulepath_agent.doctor.figures import Counter, Markers, Page, Pair, Permission, Settled, Spread, Waiting, spread
from joulepath_agent.doctor.hold import Hold, NotMeasuredError
from joulepath_agent.doctor.load import MARKER_OFFSET, MOST_WRITES, TIMES_OFFSET, Load
from joulepath_clocks.gpus.nvml import Gpu, GpuError

__all__ = ["counter", "looks_until", "markers", "page", "permission", "settled", "switches", "target_clocks", "waiting"]

_SHARES: Final = (0.5, 0.67, 0.8, 0.92)
"""Of the highest clock: where plans put instructions."""
_WARM_UP_S: Final = 3.0
_WATCHED_S: Final = 3.0
_LOOK_S: Final = 0.0005
_SLOW_LOOK_S: Final = 0.01
_DWELL_S: Final = 0.12
"""At least so long a switch is looked at; more where lags are long."""
_LONGEST_DWELL_S: Final = 0.6
_LONGER: Final = 1.3
_REPEATS: Final = 3
_SETTLE_S: Final = 0.4
_FEWEST_STEPS: Final = 8
_STEPS: Final = 25
_COUNTED_S: Final = 4.0
_WRITES: Final = 200
_PAGE_S: Final = 10.0
_POWER_S: Final = 1.2


def target_clocks(gpu: Gpu) -> tuple[int, ...]:
    """The clocks between which switches are measured; 0, the last one, is default clocks."""
    clocks, top = gpu.supported_clocks_mhz, gpu.supported_clocks_mhz[0]
    nearest = {min(clocks, key=lambda clock, share=share: abs(clock - share * top)) for share in _SHARES}  # type: ignore[misc]
    return (*sorted(nearest), 0)


def permission(hold: Hold) -> Permission:
    """Locks the highest clock and resets it."""
    took_s = []
    try:
        try:
            for clock in (hold.gpu.supported_clocks_mhz[0], 0) * 2:
                begun_s = hold.lock(clock)
                took_s.append(time.monotonic() - begun_s)
        except NotMeasuredError:
            # What the warden resets in vain, and so doesn't lease, may be asked why.
            if hold.in_doubt:
                with hold.calling() as gpu:
                    gpu.reset()
            raise
    except GpuError as error:
        return Permission(False, f"{error}; {hold.gpu.refused}" if hold.gpu.refused else str(error))
    return Permission(True, call_s=spread(took_s))


def settled(hold: Hold, load: Load) -> Settled:
    """What default clocks are under load."""
    gpu = hold.gpu
    load.ask("compute")
    hold.rest(hold.pace * _WARM_UP_S)
    looks, reasons, watts = [], set[str](), []
    deadline_s = time.monotonic() + hold.pace * _WATCHED_S
    while time.monotonic() < deadline_s:
        with hold.calling():
            looks.append(gpu.sm_clock_mhz())
            reasons.update(board.slowed_by(gpu.uuid))
            watts.append(gpu.power_w())
        hold.rest(_SLOW_LOOK_S)
    with hold.calling():
        limit_w, default_limit_w = board.power_limits_w(gpu.uuid)
    cuts = quantiles(looks, n=20, method="inclusive")
    return Settled(
        clock_mhz=int(median(looks)),
        low_mhz=int(cuts[0]),
        high_mhz=int(cuts[-1]),
        highest_mhz=gpu.supported_clocks_mhz[0],
        power_w=median(watts),
        limit_w=limit_w,
        default_limit_w=default_limit_w,
        slowed_by=tuple(sorted(reasons)),
        load=load.name,
    )


def counter(hold: Hold) -> Counter:
    """How often and how finely the energy counter moves."""
    steps_s, steps_j, read_s = list[float](), list[int](), list[float]()
    last_j = hold.energy_j()
    deadline_s = time.monotonic() + hold.pace * _COUNTED_S
    while time.monotonic() < deadline_s and len(steps_s) < _STEPS:
        before_s = time.monotonic()
        energy_j = hold.energy_j()
        now_s = time.monotonic()
        read_s.append(now_s - before_s)
        if energy_j != last_j:
            steps_s.append((before_s + now_s) / 2)
            steps_j.append(round(1e3 * (energy_j - last_j)))
            last_j = energy_j
        hold.rest(_LOOK_S)
    if len(steps_s) < _FEWEST_STEPS:
        raise NotMeasuredError(f"the energy counter moved {len(steps_s)} times in {hold.pace * _COUNTED_S:.1f} s")
    periods = [later - sooner for sooner, later in itertools.pairwise(steps_s)]
    return Counter(spread(periods), math.gcd(*steps_j) / 1e3, spread(read_s))


def switches(hold: Hold, load: Load, limit_s: float) -> tuple[Pair, ...]:
    """Lags of every switch among some clocks, each several times, in an order that takes each pair in turn."""
    gpu = hold.gpu
    clocks = target_clocks(gpu)
    step_mhz = min((a - b for a, b in itertools.pairwise(gpu.supported_clocks_mhz)), default=1)
    load.ask("compute")
    seen: dict[tuple[int, int], list[tuple[int, float | None]]] = {}
    dwell_s, deadline_s = hold.pace * _DWELL_S, time.monotonic() + limit_s
    hold.lock(clocks[0])
    hold.rest(hold.pace * _SETTLE_S)
    before_mhz, at = hold.sm_clock_mhz(), clocks[0]
    for clock in _rounds(clocks, random.Random(0)):
        if time.monotonic() > deadline_s:
            break
        looks = looks_until(hold, hold.lock(clock), lambda _: False, dwell_s)
        switch = switch_of(before_mhz, looks, step_mhz)
        # A lag that fills much of the time for which it is looked at, or all of it, may be longer still.
        if switch is None or switch.lag_s is None or switch.lag_s > dwell_s / 3:
            dwell_s = min(_LONGEST_DWELL_S, _LONGER * dwell_s)
        if switch is not None:
            seen.setdefault((at, clock), []).append((switch.settled_mhz, switch.lag_s))
            before_mhz = switch.settled_mhz
        at = clock
    hold.lock(0)
    pairs = tuple(_pair(a, b, found) for (a, b), found in sorted(seen.items()))
    if not any(pair.lags_s for pair in pairs):
        raise NotMeasuredError("no switch was seen to come in force: the SM clock didn't follow")
    return pairs


def looks_until(hold: Hold, begun_s: float, there: Callable[[int], bool], limit_s: float) -> list[tuple[float, int]]:
    """Looks at the SM clock from an order on, until it is as wanted or for so long: (seconds since, MHz)."""
    looks = []
    while (now_s := time.monotonic()) < begun_s + limit_s:
        before_s = now_s
        mhz = hold.sm_clock_mhz()
        looks.append(((before_s + time.monotonic()) / 2 - begun_s, mhz))
        if there(mhz):
            break
        hold.rest(_LOOK_S)
    return looks


def waiting(hold: Hold, load: Load) -> tuple[Waiting, ...]:
    """Watts while a kernel only spins, by clock; where clocks can't be set, at default clocks."""
    load.ask("wait")
    found = []
    for clock in reversed(target_clocks(hold.gpu)):
        if clock:
            try:
                hold.lock(clock)
            except (NotMeasuredError, GpuError):
                break
        hold.rest(hold.pace * _SETTLE_S)
        power_w, seconds = _mean_power_w(hold)
        found.append(Waiting(clock, power_w, seconds))
    if len(found) > 1:
        hold.lock(0)
    load.ask("rest")
    return tuple(found)


def page(hold: Hold, load: Load) -> Page:
    """Whether this process sees what the GPU writes on a page of the load's process, and how soon."""
    words, seen_s = memoryview(load.page).cast("I"), dict[int, float]()
    count = max(_FEWEST_STEPS, min(MOST_WRITES, round(hold.pace * _WRITES)))
    load.tell({"do": "write", "count": count})
    deadline_s, at = time.monotonic() + _PAGE_S, MARKER_OFFSET // 4
    while (value := words[at]) < count and time.monotonic() < deadline_s:
        if value not in seen_s:
            seen_s[value] = time.monotonic()
    seen_s.setdefault(value, time.monotonic())
    ordered = bool(load.answer()["ordered"])
    seen_s.pop(0, None)
    times = struct.Struct("<q").unpack_from
    latencies = [at_s - times(load.page, TIMES_OFFSET + 8 * (value - 1))[0] / 1e9 for value, at_s in seen_s.items()]
    hold.rest(0.0)
    return Page(len(latencies), count, ordered, spread(latencies) if latencies else None)


def markers(load: Load) -> Markers:
    """What a marker's calls cost."""
    told = load.ask("markers")
    record, write, query, elapsed = (Spread(**told[name]) for name in ("record", "write", "query", "elapsed"))
    return Markers(record, write, query, elapsed, float(told["gpu_s"]))


def _mean_power_w(hold: Hold) -> tuple[float, float]:
    """Watts between two steps of the energy counter, and the seconds between these."""
    edges: list[tuple[float, float]] = []
    last_j = hold.energy_j()
    deadline_s = time.monotonic() + hold.pace * _POWER_S
    while time.monotonic() < deadline_s:
        energy_j = hold.energy_j()
        if energy_j != last_j:
            edges.append((time.monotonic(), energy_j))
            last_j = energy_j
        hold.rest(_LOOK_S)
    if len(edges) < 2:
        raise NotMeasuredError(f"the energy counter moved {len(edges)} times in {hold.pace * _POWER_S:.1f} s")
    (first_s, first_j), (last_s, final_j) = edges[0], edges[-1]
    return (final_j - first_j) / (last_s - first_s), last_s - first_s


def _rounds(clocks: Sequence[int], chance: random.Random) -> Iterator[int]:
    """From the first clock on, all ordered pairs once a round: Hierholzer's circuit, its order drawn."""
    for _ in range(_REPEATS):
        left = {clock: chance.sample([one for one in clocks if one != clock], len(clocks) - 1) for clock in clocks}
        path, circuit = [clocks[0]], []
        while path:
            if left[path[-1]]:
                path.append(left[path[-1]].pop())
            else:
                circuit.append(path.pop())
        yield from reversed(circuit[:-1])


def _pair(from_mhz: int, to_mhz: int, found: Sequence[tuple[int, float | None]]) -> Pair:
    lags = tuple(lag for _, lag in found if lag is not None)
    up = (to_mhz or math.inf) > (from_mhz or math.inf)
    return Pair(from_mhz, to_mhz, up, int(median(mhz for mhz, _ in found)), lags, len(found) - len(lags))
