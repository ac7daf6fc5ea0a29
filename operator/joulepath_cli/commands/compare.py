"""`joulepath compare`: plans side by side, saved ones or one for each combination of options."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.table import Table

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document, goal
from joulepath_cli.commands import scenario as scenarios
from joulepath_cli.commands.document import Saved
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import ArgumentError, Granularity, plan, simulate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="PROFILE|PLAN.json", help="a profile to plan on, or plans saved with plan --json"
    )
    scenarios.add_arguments(parser, several_schedules=True)
    group = parser.add_argument_group("what to compare; each takes several, with commas")
    group.add_argument(
        "--granularity",
        type=quantities.listed(_granularity),
        default=list(get_args(Granularity)),
        metavar="NAMES",
        help="(default: instruction,phase,kind,rank)",
    )
    one = group.add_mutually_exclusive_group()
    one.add_argument("--slowdown", type=quantities.listed(quantities.fraction), metavar="SHARES", help="(default: 0%%)")
    one.add_argument(
        "--deadline", type=quantities.listed(quantities.seconds), metavar="TIMES", help="instead, such as 2.9s,3.1s"
    )
    one.add_argument(
        "--straggler",
        type=quantities.listed(quantities.straggler),
        metavar="FACTORS|TIMES",
        help="instead, iteration times of another pipeline that is waited for, such as 1.1,1.2 (times T_min) or 3.4s",
    )
    parser.add_argument("--json", action="store_true", help="the table as JSON")


def run(options: Namespace) -> None:
    saved = [Path(one) for one in options.what if one.endswith(".json")]
    if saved and len(saved) < len(options.what):
        raise ArgumentError("compare takes either one profile or saved plans (.json), not both.")
    if len(options.what) > 1 and not saved:
        raise ArgumentError(f"compare takes one profile, not {len(options.what)}; plans end with .json.")
    found = [document.read(path) for path in saved] if saved else _made(options)
    if options.json:
        print(document.dumps([_row_document(one, found[0]) for one in found]))
    else:
        terminal.show(_table(found))


def _granularity(text: str) -> str:
    if text not in goal.GRANULARITIES:
        raise ArgumentTypeError(f"{text!r} is no granularity; it is one of {', '.join(goal.GRANULARITIES)}.")
    return text


@dataclass(frozen=True, slots=True)
class _Wish:
    """label: as it was written; the rest as `plan` takes it. pace_s: the iteration time of a straggler."""

    label: str
    slowdown: float = 0.0
    deadline_s: float | None = None
    pace_s: float | None = None


def _wishes(scenario: Scenario, options: Namespace) -> list[_Wish]:
    if options.deadline:
        return [_Wish(f"by {given:g} s", deadline_s=goal.deadline_s(scenario, given)) for given in options.deadline]
    if options.straggler:
        return [
            _Wish(
                f"straggler {f'{seconds:g} s' if seconds else f'{factor:g}'}", pace_s=goal.straggler_s(scenario, given)
            )
            for given in options.straggler
            for factor, seconds in (given,)
        ]
    return [_Wish(f"{100 * slowdown:g}%", slowdown) for slowdown in options.slowdown or [0.0]]


def _made(options: Namespace) -> list[Saved]:
    names: Sequence[str | None] = options.schedule or [None]
    loaded = [scenarios.load(options.what[0], options, name) for name in names]
    wanted = [
        (scenario, wish, granularity)
        for scenario in loaded
        for wish in _wishes(scenario, options)
        for granularity in options.granularity
    ]
    found = []
    with terminal.working("planning", len(wanted)) as step:
        for scenario, wish, granularity in wanted:
            made = plan(
                scenario.pipeline,
                deadline_s=wish.deadline_s or wish.pace_s,
                slowdown=wish.slowdown,
                granularity=granularity,
                lags=scenario.lags,
                fixed=wish.pace_s is not None,
            )
            replayed = goal.Made(
                made,
                simulate(scenario.pipeline, made.clocks, scenario.lags, pace_s=wish.pace_s),
                simulate(scenario.pipeline, pace_s=wish.pace_s),
                wish.pace_s,
            )
            schedule = [scenario.pipeline.schedule.name] if len(loaded) > 1 else []
            name = ", ".join([*schedule, granularity, wish.label])
            found.append(document.saved(name, document.plan_document(scenario, replayed)))
            step()
    return found


def _row_document(one: Saved, first: Saved) -> dict[str, Any]:
    return {
        "name": one.name,
        "granularity": one.granularity,
        "ranks": one.ranks,
        "iteration_time_s": one.iteration_time_s,
        "slowdown": one.iteration_time_s / one.t_min_s - 1,
        "energy_j": one.energy_j,
        "lower_bound_j": one.lower_bound_j,
        "optimality_gap": one.energy_j / one.lower_bound_j - 1,
        "savings": None if one.baseline_energy_j is None else 1 - one.energy_j / one.baseline_energy_j,
        "switches": one.switches,
        "other_clocks": _others(one, first),
    }


def _others(one: Saved, first: Saved) -> int | None:
    """How many instructions have another clock than in the first plan; None if they aren't the same instructions."""
    if one.clocks.keys() != first.clocks.keys():
        return None
    return sum(clock != first.clocks[key] for key, clock in one.clocks.items())


def _table(found: Sequence[Saved]) -> Table:
    rows = []
    for one in found:
        others = _others(one, found[0])
        rows.append(
            (
                one.name if one.granularity in one.name else f"{one.name} ({one.granularity})",
                str(one.ranks),
                f"{one.iteration_time_s:.4f}",
                terminal.change(one.iteration_time_s, one.t_min_s),
                f"{one.energy_j:.1f}",
                terminal.change(one.energy_j, one.baseline_energy_j) if one.baseline_energy_j else "",
                terminal.share(one.energy_j / one.lower_bound_j - 1),
                "" if one.switches is None else str(one.switches),
                "" if others is None else f"{others}/{len(one.clocks)}",
            )
        )
    headings = ("plan", "ranks", "T, s", "slowdown", "energy, J", "change", "gap", "switches", "other clocks")
    return terminal.table(
        "", headings, rows, "change: against default clocks; gap: over the bound; other clocks: than the first plan's"
    )
