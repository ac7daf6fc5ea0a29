"""The lags of several GPUs of one model as one, to plan with.

A slow GPU counts by its median. Tails are the middle one of the GPUs': the 95th percentile of a GPU's few switches is
its slowest one, often the host's delay in seeing it, and the slowest of all would only be that.

The same holds for each clock that is switched to. Of a GPU that doesn't know its lag to one, what it knows of all is
its tail there.

What an earlier run has seen stands beside that: a run that only checks a profile switches a few times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Literal, TypeAlias

from joulepath_crds import MOST_TARGETS, SwitchingLag, TargetLag

__all__ = ["joined", "pooled"]

_Target: TypeAlias = tuple[int, Literal["up", "down"]]


def pooled(lags: Sequence[SwitchingLag]) -> SwitchingLag:
    """The lag to plan with for these GPUs, one at least."""
    up_s, down_s = (max(lag.up_median_s for lag in lags), max(lag.down_median_s for lag in lags))
    of_gpus = [{(row.clock_mhz, row.direction): row for row in lag.targets or ()} for lag in lags]
    rows = [_row(lags, of_gpus, key) for key in sorted({key for rows in of_gpus for key in rows})]
    return SwitchingLag(
        up_median_s=up_s,
        up_p95_s=max(up_s, median(lag.up_p95_s for lag in lags)),
        down_median_s=down_s,
        down_p95_s=max(down_s, median(lag.down_p95_s for lag in lags)),
        samples=sum(lag.samples for lag in lags),
        targets=_most_seen(rows),
    )


def joined(now: SwitchingLag | None, then: SwitchingLag | None) -> SwitchingLag | None:
    """What this run knows and what an earlier one did: of each clock that is switched to, and of all, the one that has
    seen more switches; this one if as many. A few blocks see a few clocks, mostly in one direction."""
    if now is None or then is None:
        return now or then
    rows = {(row.clock_mhz, row.direction): row for row in then.targets or ()}
    for row in now.targets or ():
        before = rows.get((row.clock_mhz, row.direction))
        if before is None or row.samples >= before.samples:
            rows[row.clock_mhz, row.direction] = row
    surer = now if now.samples >= then.samples else then
    return surer.model_copy(update={"targets": _most_seen(rows.values())})


def _most_seen(rows: Iterable[TargetLag]) -> tuple[TargetLag, ...] | None:
    return tuple(sorted(rows, key=lambda row: -row.samples)[:MOST_TARGETS]) or None


def _row(lags: Sequence[SwitchingLag], of_gpus: Sequence[Mapping[_Target, TargetLag]], key: _Target) -> TargetLag:
    known = [rows[key] for rows in of_gpus if key in rows]
    of_all_s = (lag.up_p95_s if key[1] == "up" else lag.down_p95_s for lag in lags)
    tails_s = [rows[key].p95_s if key in rows else tail_s for rows, tail_s in zip(of_gpus, of_all_s, strict=True)]
    middle_s = max(row.median_s for row in known)
    return TargetLag(
        clock_mhz=key[0],
        direction=key[1],
        median_s=middle_s,
        p95_s=max(middle_s, median(tails_s)),
        samples=sum(row.samples for row in known),
    )
