"""What figures mean for plans: one finding for each check, for people. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Final

from joulepath_agent.doctor.figures import Examined, Spread, spread

__all__ = ["Finding", "Verdict", "findings"]

_SHORT_LAG_S: Final = 0.03
_LONG_LAG_S: Final = 0.1
_PAYS_LAGS: Final = 4
"""Instructions shorter than so many lags share a clock: the planner's rule, by the 95th percentile."""
_SHORT_PERIOD_S: Final = 0.15
_SOON_S: Final = 0.001
_CHEAP_S: Final = 20e-6
_RESET_S: Final = 2.0
_SLOWER: Final = 1.05
_NEAR: Final = 0.98


class Verdict(StrEnum):
    """In a word."""

    GOOD = "good"
    FAIR = "fair"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the table."""

    what: str
    figure: str
    verdict: Verdict
    meaning: str


def findings(found: Examined) -> tuple[Finding, ...]:
    """One for each check, whether or not it could be done."""
    told: list[Finding] = []
    for name, what, of in _CHECKS:
        figure = getattr(found, name)
        if figure:
            told += of(figure)
        else:
            why = found.without.get(name) or found.without.get("ended", "the examination ended before it")
            told.append(Finding(what, "not measured", Verdict.UNKNOWN, why))
    return tuple(told)


def _permission(one: Any) -> Iterable[Finding]:
    if not one.can_set:
        yield Finding("permission", "refused", Verdict.BAD, f"No plan can be in force here: {one.why}.")
        return
    yield Finding("permission", f"call blocks {_ms(one.call_s)}", Verdict.GOOD, "Clocks can be set and reset.")


def _settled(one: Any) -> Iterable[Finding]:
    range_ = f"{one.clock_mhz} MHz ({one.low_mhz} to {one.high_mhz})"
    reaches = one.clock_mhz >= _NEAR * one.highest_mhz
    why = f", held back by: {', '.join(one.slowed_by)}" if one.slowed_by else ""
    meaning = (
        f"It reaches its highest clock ({one.highest_mhz} MHz) under {one.load}."
        if reaches
        else f"Under {one.load} it doesn't reach {one.highest_mhz} MHz{why}: clocks above "
        f"{one.clock_mhz} MHz are default clocks to a plan."
    )
    yield Finding("default clocks", range_, Verdict.GOOD if reaches else Verdict.FAIR, meaning)
    cap = f"{one.limit_w:.0f} W, draws {one.power_w:.0f} W"
    lowered = one.limit_w < _NEAR * one.default_limit_w
    meaning = (
        f"Somebody has lowered it from {one.default_limit_w:.0f} W."
        if lowered
        else "It is the GPU's own: nobody has lowered it."
    )
    yield Finding("power cap", cap, Verdict.FAIR if lowered else Verdict.GOOD, meaning)


def _pairs(pairs: Any) -> Iterable[Finding]:
    for way, up in (("lag to higher clocks", True), ("lag to lower clocks", False)):
        lags = [lag for pair in pairs if pair.up is up for lag in pair.lags_s]
        unseen = sum(pair.unseen for pair in pairs if pair.up is up)
        if not lags:
            yield Finding(way, "not measured", Verdict.UNKNOWN, f"None of {unseen} switches was seen sharply.")
            continue
        all_of = spread(lags)
        by_target = {
            pair.to_mhz: median(
                lag for other in pairs if (other.up, other.to_mhz) == (up, pair.to_mhz) for lag in other.lags_s
            )
            for pair in pairs
            if pair.up is up and pair.lags_s
        }
        targets = ", ".join(f"{_clock(clock)} {1e3 * lag:.0f}" for clock, lag in sorted(by_target.items(), key=_height))
        verdict = (
            Verdict.GOOD if all_of.p95 <= _SHORT_LAG_S else Verdict.FAIR if all_of.p95 <= _LONG_LAG_S else Verdict.BAD
        )
        meaning = (
            f"Instructions of {1e3 * _PAYS_LAGS * all_of.p95:.0f} ms and longer get a clock of their own. "
            f"Median by target, ms: {targets}." + (f" {unseen} switches weren't seen sharply." if unseen else "")
        )
        yield Finding(way, _ms(all_of), verdict, meaning)


def _counter(one: Any) -> Iterable[Finding]:
    verdict = Verdict.GOOD if one.period_s.p95 <= _SHORT_PERIOD_S else Verdict.FAIR
    meaning = (
        f"Power by kind of instruction is told from windows of {1e3 * one.period_s.median:.0f} ms; "
        f"its least step seen is {one.resolution_j:g} J, a read takes {1e6 * one.read_s.median:.0f} us."
    )
    yield Finding("energy counter", f"moves every {_ms(one.period_s)}", verdict, meaning)


def _waiting(one: Any) -> Iterable[Finding]:
    watts = ", ".join(
        f"{_clock(row.clock_mhz)} {row.power_w:.0f} W" for row in sorted(one, key=lambda r: _height((r.clock_mhz, 0)))
    )
    top, low = one[0], min(one, key=lambda row: row.clock_mhz or 1 << 30)
    figure = f"{top.power_w:.0f} W"
    meaning = f"What a GPU draws while a kernel of it only spins (a stand-in for NCCL's wait): {watts}."
    if low is not top:
        figure += f", at {low.clock_mhz} MHz {low.power_w:.0f} W"
    yield Finding("blocking power", figure, Verdict.GOOD, meaning)


def _page(one: Any) -> Iterable[Finding]:
    if one.latency_s is None or not one.ordered:
        why = "none was seen" if one.latency_s is None else "they don't wait for the work ahead of them"
        yield Finding("stream writes", "useless", Verdict.BAD, f"Markers by the GPU can't be used: {why}.")
        return
    verdict = Verdict.GOOD if one.latency_s.p95 <= _SOON_S else Verdict.FAIR
    us = f"seen after {1e6 * one.latency_s.median:.0f} us (p95 {1e6 * one.latency_s.p95:.0f})"
    meaning = f"Another process saw {one.seen} of {one.of} writes of the GPU, each after the work ahead of it."
    yield Finding("stream writes", us, verdict, meaning)


def _markers(one: Any) -> Iterable[Finding]:
    host_s = one.record_s.median + one.write_s.median
    meaning = (
        f"Record {1e6 * one.record_s.median:.1f}, write {1e6 * one.write_s.median:.1f}, query "
        f"{1e6 * one.query_s.median:.1f}, elapsed {1e6 * one.elapsed_s.median:.1f} us of the host; an instruction has "
        f"two markers, and each costs the GPU {1e6 * one.gpu_s:.1f} us between short kernels."
    )
    verdict = Verdict.GOOD if host_s + one.gpu_s <= _CHEAP_S else Verdict.FAIR
    yield Finding("a marker's cost", f"{1e6 * host_s:.1f} us host, {1e6 * one.gpu_s:.1f} us GPU", verdict, meaning)


def _killed(one: Any) -> Iterable[Finding]:
    verdict = Verdict.GOOD if one.locked_s <= _RESET_S else Verdict.BAD
    meaning = f"So long a lock to {one.clock_mhz} MHz outlived the SIGKILL of its holder; the warden reset it."
    yield Finding("reset after SIGKILL", f"{one.locked_s:.2f} s", verdict, meaning)


def _collectives(one: Any) -> Iterable[Finding]:
    slower = max(one.high_s.median, one.low_s.median)
    ratio = one.switching_s.median / slower
    slows = ratio > _SLOWER
    meaning = (
        f"{one.backend}, {one.bytes >> 20} MiB: {_ms(one.high_s)} at {one.high_mhz} MHz, {_ms(one.low_s)} at "
        f"{one.low_mhz} MHz, {_ms(one.switching_s)} while it alternates every {1e3 * one.switch_every_s:.0f} ms. "
        + (
            "Switching itself slows them down: prefer plans of fewer switches."
            if slows
            else "Switching doesn't slow them down."
        )
    )
    verdict = Verdict.BAD if slows else Verdict.GOOD
    yield Finding("collectives", f"x{ratio:.2f} while switching", verdict, meaning)


def _ms(one: Spread) -> str:
    return f"{1e3 * one.median:.3g} ms (p95 {1e3 * one.p95:.3g}, n {one.n})"


def _clock(clock_mhz: int) -> str:
    return f"{clock_mhz} MHz" if clock_mhz else "default"


def _height(row: tuple[int, Any]) -> float:
    return row[0] or float("inf")


_CHECKS: Final[tuple[tuple[str, str, Callable[[Any], Iterable[Finding]]], ...]] = (
    ("permission", "permission", _permission),
    ("settled", "default clocks", _settled),
    ("pairs", "lag of switches", _pairs),
    ("counter", "energy counter", _counter),
    ("waiting", "blocking power", _waiting),
    ("page", "stream writes", _page),
    ("markers", "a marker's cost", _markers),
    ("killed", "reset after SIGKILL", _killed),
    ("collectives", "collectives", _collectives),
)
