"""A plan, a sweep and a conductor, and iterations that pass by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.wish import Wish
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_rules import (
    Plan,
    Purpose,
    StagePlan,
    Sweep,
)
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

ORDER = ("F0", "F1", "B0", "B1")
CLOCKS = (900, 1200, 0, 600)
DURATIONS = (0.2, 0.3, 0.4, 0.5)
LAG_S = 0.05


def plan(**changes: object) -> Plan:
    """An Enforce plan in force from iteration 10 on, without blocks."""
    stages = (StagePlan(stage=0, order=ORDER, clocks_mhz=CLOCKS, durations_s=DURATIONS),)
    fields: dict[str, Any] = {
        "purpose": Purpose.ENFORCE,
        "hash": "one",
        "activate_at": 10,
        "stages": stages,
        "default_clock_mhz": 1410,
    }
    return Plan(**{**fields, **changes})


def sweep(**changes: object) -> Plan:
    """A sweep of three blocks of two iterations from iteration 10 on."""
    return plan(
        **{
            "purpose": Purpose.SWEEP,
            "stages": (),
            "sweep": Sweep(clocks_mhz=(900, 0, 600), iterations_per_block=2),
            **changes,
        }
    )


def conductor(**changes: object) -> Conductor:
    """A conductor of stage 0."""
    return Conductor(**{"attempt": 0, "stages": (0,), "lags_up": UpLags(LAG_S), **changes})  # type: ignore[arg-type]


def entries(iteration: int, order: tuple[str, ...] = ORDER) -> Iterator[MarkerEntry]:
    """The markers of an iteration."""
    yield MarkerEntry(1, iteration, MarkerEvent.STEP_BEGIN, "", 0, 0)
    for name in order:
        yield MarkerEntry(1, iteration, MarkerEvent.BEGIN, name[0], 0, int(name[1:]))
        yield MarkerEntry(1, iteration, MarkerEvent.END, name[0], 0, int(name[1:]))
    yield MarkerEntry(1, iteration, MarkerEvent.STEP_END, "", 0, 0)


def run(player: Conductor, iteration: int, at_s: float = 0.0, order: tuple[str, ...] = ORDER) -> list[Wish | None]:
    """One iteration with the planned durations, nothing in between."""
    wishes = []
    for entry in entries(iteration, order):
        if entry.event is MarkerEvent.END:
            at_s += DURATIONS[ORDER.index(f"{entry.kind}{entry.microbatch}")]
        wishes.append(player.on_event(entry, at_s))
    return wishes


def at(player: Conductor, iteration: int) -> Wish | None:
    """The wish at the begin of an iteration."""
    return player.on_event(next(entries(iteration)), float(iteration))
