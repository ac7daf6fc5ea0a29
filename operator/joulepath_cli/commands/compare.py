"""`joulepath compare`: plans side by side, saved ones or one for each combination of options."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

from rich.table import Table

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document, goal
from joulepath_cli.commands import scenario as scenarios
from joulepath_cli.commands.document import Saved
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
    group.add_argument(
        "--slowdown",
        type=quantities.listed(quantities.fraction),
        default=[0.0],
        metavar="SHARES",
        help="(default: 0%%)",
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


def _made(options: Namespace) -> list[Saved]:
    names: Sequence[str | None] = options.schedule or [None]
    loaded = [scenarios.load(options.what[0], options, name) for name in names]
    wanted = list(product(loaded, options.slowdown, options.granularity))
    found = []
    with terminal.working("planning", len(wanted)) as step:
        for scenario, slowdown, granularity in wanted:
            made = plan(scenario.pipeline, slowdown=slowdown, granularity=granularity, lags=scenario.lags)
            replayed = goal.Made(
                made, simulate(scenario.pipeline, made.clocks, scenario.lags), simulate(scenario.pipeline)
            )
            schedule = [scenario.pipeline.schedule.name] if len(loaded) > 1 else []
            name = ", ".join([*schedule, granularity, f"{100 * slowdown:g}%"])
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
