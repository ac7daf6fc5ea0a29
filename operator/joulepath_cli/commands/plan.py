"""`joulepath plan`: the clock of every instruction, and what that saves."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from rich.table import Table

from joulepath_cli import terminal
from joulepath_cli.commands import document, drawing, files, goal
from joulepath_cli.commands import scenario as scenarios
from joulepath_cli.commands.goal import Made
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import ArgumentError, Robustness, frontier, perseus_text

__all__ = ["add_arguments", "run"]

_MOST_ODD: Final = 6
"""Points that are listed."""


def add_arguments(parser: ArgumentParser) -> None:
    scenarios.add_profile(parser)
    scenarios.add_arguments(parser)
    goal.add_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="the plan as JSON, with every instruction")
    output.add_argument(
        "--plot",
        nargs="+",
        type=Path,
        metavar="SVG",
        default=[],
        help="draw an iteration before and after into the first file, the frontier into a second",
    )
    output.add_argument(
        "--perseus",
        type=Path,
        metavar="PY",
        help="write the clocks as Perseus does (freqs_pipeline_00000.py), for Zeus's server to run",
    )


def run(options: Namespace) -> None:
    if len(options.plot) > 2:
        raise ArgumentError(f"--plot takes a timeline and a frontier, two files, not {len(options.plot)}.")
    files.check_outputs(options.plot, files.SVG)
    files.check_outputs([options.perseus] if options.perseus else [], files.PERSEUS)
    scenario = scenarios.load(options.profile, options)
    with terminal.working("planning") as step:
        made = goal.make(scenario, options, step)
    if options.perseus:
        files.write(options.perseus, perseus_text(scenario.pipeline, made.plan.clocks))
    if options.plot:
        with terminal.working("drawing"):
            files.write(options.plot[0], drawing.timeline_picture(scenario, made))
            for path in options.plot[1:]:
                picture = drawing.frontier_picture(scenario, frontier(scenario.pipeline), made.plan)
                files.write(path, picture)
    if options.json:
        print(document.dumps(document.plan_document(scenario, made)))
    else:
        terminal.show(
            _summary(scenario, made),
            _ranks(scenario, made),
            *_certainty(scenario, made, options),
            *_alternatives(made),
            *_jitter(made, options.margin),
        )


def _summary(scenario: Scenario, made: Made) -> Table:
    plan, default = made.plan, made.default
    power, default_power = plan.energy_j / plan.iteration_time_s, default.energy_j / default.iteration_time_s
    rows = [
        (
            "iteration time",
            f"{default.iteration_time_s:.4f} s",
            f"{plan.iteration_time_s:.4f} s",
            terminal.change(plan.iteration_time_s, default.iteration_time_s),
        ),
        (
            "energy of an iteration",
            f"{default.energy_j:.1f} J",
            f"{plan.energy_j:.1f} J",
            terminal.change(plan.energy_j, default.energy_j),
        ),
        (
            "power, all GPUs",
            f"{default_power:.0f} W",
            f"{power:.0f} W",
            terminal.change(power, default_power),
        ),
        ("no plan can cost less than", "", f"{plan.lower_bound_j:.1f} J", f"gap {terminal.share(plan.optimality_gap)}"),
        ("switches of clocks", "0", str(plan.switches), f"granularity {plan.granularity}"),
    ]
    waits = f", waiting for a straggler of {made.straggler_s:.4f} s" if made.straggler_s else ""
    waits += f", held at {made.held_s:.4f} s to draw less" if made.held_s else ""
    caption = f"deadline {plan.deadline_s:.4f} s, T_min {plan.t_min_s:.4f} s{waits}"
    return terminal.table(scenario.title, ("", "default clocks", "plan", "change"), rows, caption)


def _ranks(scenario: Scenario, made: Made) -> Table:
    rows = []
    for rank, events, energy, clocks in zip(
        made.plan.ranks, made.replay.ranks, made.replay.energy, made.plan.clocks, strict=True
    ):
        default = scenario.pipeline.profile.default_clock_mhz(rank.stages[0])
        known = [clock or default for clock in clocks]
        slowed = sum(clock < default for clock in known)
        busy = sum(event.duration_s for event in events) / made.replay.iteration_time_s
        rows.append(
            (
                f"{rank.rank}",
                ", ".join(map(str, rank.stages)),
                f"{min(known)} to {max(known)} MHz" if min(known) < max(known) else f"{max(known)} MHz",
                f"{slowed} of {len(known)}",
                f"{busy:.0%}",
                f"{energy.compute_j:.1f} J",
                f"{energy.wait_j + energy.tail_j:.1f} J",
            )
        )
    return terminal.table("", ("rank", "stages", "clocks", "slowed", "busy", "computing", "waiting"), rows)


def _certainty(scenario: Scenario, made: Made, options: Namespace) -> list[str]:
    """How sure a plan is that counts on clocks that were filled in, and what to do where that is little."""
    if made.certainty is None or scenario.fitted is None:
        return []
    sure = made.certainty
    told = [
        f"By what the measurements most likely mean, the plan takes {sure.slowdown:+.2%} (standard error "
        f"{sure.slowdown_se:.2%}, hardly ever over {sure.slowdown_at_most:+.2%}) and saves {sure.savings:.1%} "
        f"({sure.savings_se:.1%})."
    ]
    late = sure.beyond(made.plan.deadline_s / made.plan.t_min_s)
    if late > options.margin:
        told.append(
            f"It may be late by {late:.2%}: measure more clocks, or again; --reserve {options.reserve + late:.1%} "
            "makes a plan that depends on them less."
        )
    odd = [
        f"stage {stage} {kind} at {one.clock_mhz} MHz ({one.time:+.1%} time, {one.power:+.1%} power)"
        for (stage, kind), ones in scenario.fitted.residuals.items()
        for one in ones
        if one.outlier
    ]
    if odd:
        more = f" and {len(odd) - _MOST_ODD} more" if len(odd) > _MOST_ODD else ""
        told.append(f"Hardly as the others: {', '.join(odd[:_MOST_ODD])}{more}.")
    return told


def _alternatives(made: Made) -> list[Table]:
    rows = [
        (
            one.granularity,
            f"{one.iteration_time_s:.4f} s",
            f"{one.energy_j:.1f} J",
            terminal.change(one.energy_j, made.plan.baseline_energy_j),
            f"{one.lower_bound_j:.1f} J",
            terminal.change(one.lower_bound_j, made.plan.baseline_energy_j),
            str(one.switches),
        )
        for one in made.alternatives
    ]
    headings = ("at most this fine", "iteration", "plan", "change", "its bound", "change", "switches")
    caption = "change: against default clocks; bounds hold for clocks that switch at once"
    return [terminal.table("What coarser control costs", headings, rows, caption)] if rows else []


def _jitter(made: Made, margin: float) -> list[Table | str]:
    if made.jitter is None:
        return []
    bound = margin + (0.0 if made.pace_s else made.plan.deadline_s / made.plan.t_min_s - 1)
    rows = [_jitter_row("default clocks", made.jitter, 0.0, default=True)]
    if made.robust:
        rows.append(_jitter_row("plan without reserve", made.robust.careless_robustness, bound))
    rows.append(_jitter_row("plan", made.jitter, bound))
    shown: list[Table | str] = [
        terminal.table(
            f"With jitter, {len(made.jitter.slowdowns)} iterations",
            ("", "mean", "p50", "p95", "p99", "slowdown p95", f"over {bound:.2%}"),
            rows,
            "slowdown: against default clocks under the same jitter",
        )
    ]
    if made.robust:
        shown.append(
            f"A reserve of {made.robust.reserve:.2%} keeps that; it costs {made.robust.cost_j:.1f} J an iteration "
            f"({made.robust.cost_j / made.plan.baseline_energy_j:.2%} of default clocks' energy)."
        )
    return shown


def _jitter_row(name: str, found: Robustness, bound: float, *, default: bool = False) -> tuple[str, ...]:
    spread = found.default if default else found.plan
    times = [f"{value:.4f} s" for value in (spread.mean_s, spread.p50_s, spread.p95_s, spread.p99_s)]
    last = ("", "") if default else (f"{found.slowdown_at(0.95):+.2%}", f"{found.share_over(bound):.1%}")
    return name, *times, *last
