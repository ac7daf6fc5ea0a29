"""A plan as JSON, and back as far as comparing plans needs it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from joulepath_cli.commands.goal import Made
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import ArgumentError, Robustness
from joulepath_planner.arguments import fits, quoted
from joulepath_planner.inputs.text import read_text

__all__ = ["Saved", "dumps", "jitter_document", "plan_document", "read", "saved"]

_MOST_BYTES: Final = 64_000_000
_LEAST: Final = 1e-9
_MOST: Final = 1e15


def dumps(document: Any) -> str:
    """JSON without line breaks between fields: a plan has thousands of instructions."""
    return json.dumps(document, allow_nan=False)


def plan_document(scenario: Scenario, made: Made) -> dict[str, Any]:
    """Times and energies of instructions are the referee's, lags included; energies are of all GPUs of a rank."""
    plan, profile = made.plan, scenario.pipeline.profile
    ranks = []
    for rank, events, clocks in zip(plan.ranks, made.replay.ranks, plan.clocks, strict=True):
        several = len(rank.stages) > 1
        instructions = [
            {
                **({"stage": event.instruction.stage} if several else {}),
                "kind": event.instruction.kind,
                "microbatch": event.instruction.microbatch,
                **({"back": event.instruction.back} if len(event.instruction.halves) > 1 else {}),
                "clock_mhz": clock or profile.default_clock_mhz(event.instruction.stage),
                "start_s": event.start_s,
                "duration_s": event.duration_s,
                "energy_j": event.energy_j,
            }
            for event, clock in zip(events, clocks, strict=True)
        ]
        ranks.append(
            {
                "rank": rank.rank,
                "stage": rank.stages[0],
                **({"stages": list(rank.stages)} if several else {}),
                "instructions": instructions,
            }
        )
    found = {
        "schedule": scenario.pipeline.schedule.name,
        "granularity": plan.granularity,
        "iteration_time_s": plan.iteration_time_s,
        "energy_j": plan.energy_j,
        "lower_bound_j": plan.lower_bound_j,
        "optimality_gap": plan.optimality_gap,
        "t_min_s": plan.t_min_s,
        "deadline_s": plan.deadline_s,
        "slowdown": plan.slowdown,
        "baseline_energy_j": plan.baseline_energy_j,
        "savings": plan.predicted_savings,
        "switches": plan.switches,
    }
    if made.straggler_s is not None:
        found["straggler_s"] = made.straggler_s
    if made.held_s is not None:
        found["held_s"] = made.held_s
    if made.alternatives:
        found["alternatives"] = [asdict(one) for one in made.alternatives]
    if made.certainty is not None:
        found["certainty"] = asdict(made.certainty)
    if made.jitter is not None:
        found["jitter"] = jitter_document(made.jitter)
    if made.robust is not None:
        found["robust"] = {
            "reserve": made.robust.reserve,
            "bound": made.robust.bound,
            "cost_j": made.robust.cost_j,
            "without": jitter_document(made.robust.careless_robustness),
        }
    return {**found, "ranks": ranks}


def jitter_document(found: Robustness) -> dict[str, Any]:
    """Iteration times and slowdowns under jitter."""
    return {
        "iteration_time_s": asdict(found.plan),
        "default_iteration_time_s": asdict(found.default),
        "slowdown": {f"p{100 * at:g}": found.slowdown_at(at) for at in (0.5, 0.95, 0.99)},
        "energy_j": found.energy_j,
        "default_energy_j": found.default_energy_j,
        "samples": len(found.slowdowns),
    }


@dataclass(frozen=True, slots=True)
class Saved:
    """What a plan's document says of it; clocks by (stage, kind, microbatch)."""

    name: str
    granularity: str
    iteration_time_s: float
    t_min_s: float
    energy_j: float
    lower_bound_j: float
    baseline_energy_j: float | None
    switches: int | None
    ranks: int
    clocks: dict[tuple[int, str, int], int]


def read(path: Path) -> Saved:
    """A plan that was saved.

    Raises:
        ArgumentError: It is no plan.
        OSError: The file can't be read.
    """
    text = read_text(path, ArgumentError, _MOST_BYTES)
    try:
        return saved(path.name, json.loads(text))
    except KeyError as error:
        what = f"{error} is missing"
    except RecursionError:
        what = "it is nested too deeply"
    except (TypeError, AttributeError):
        what = "its parts are others"
    except ValueError as error:
        what = str(error)
    raise ArgumentError(f"{path} is no plan ({what}); write one with joulepath plan --json.")


def saved(name: str, found: dict[str, Any]) -> Saved:
    """A plan's document.

    Raises:
        KeyError: Something is missing.
        ValueError: Something can't be.
    """
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    if not fits(ranks := found["ranks"], list[dict[str, Any]]):
        raise ValueError(f"ranks is {quoted(ranks)}")
    baseline = found.get("baseline_energy_j")
    figures = ("iteration_time_s", "t_min_s", "energy_j", "lower_bound_j")
    for figure in figures if baseline is None else (*figures, "baseline_energy_j"):
        if not fits(found[figure], float) or not _LEAST < found[figure] < _MOST:
            raise ValueError(f"{figure} is {quoted(found[figure])}, it must be above 0, in seconds or joules")
    clocks = {
        (one.get("stage", rank["stage"]), one["kind"], one["microbatch"]): one["clock_mhz"]
        for rank in ranks
        for one in rank["instructions"]
    }
    if not fits(clocks, dict[tuple[int, str, int], int]) or not fits(found.get("switches"), int | None):
        raise ValueError("an instruction's stage, kind, microbatch or clock, or switches, is no number or name")
    return Saved(
        name=name,
        granularity=str(found.get("granularity", "")),
        iteration_time_s=float(found["iteration_time_s"]),
        t_min_s=float(found["t_min_s"]),
        energy_j=float(found["energy_j"]),
        lower_bound_j=float(found["lower_bound_j"]),
        baseline_energy_j=None if baseline is None else float(baseline),
        switches=found.get("switches"),
        ranks=len(ranks),
        clocks=clocks,
    )
