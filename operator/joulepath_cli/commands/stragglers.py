"""`joulepath stragglers`: which iteration time for each pipeline of a data-parallel job, and what that saves."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from typing import Final

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document
from joulepath_cli.commands import scenario as scenarios
from joulepath_planner import ArgumentError, Job, Replica, frontier, share_out

__all__ = ["add_arguments", "run"]

_POINTS: Final = 129
_MOST_REPLICAS: Final = 100_000


def add_arguments(parser: ArgumentParser) -> None:
    scenarios.add_profile(parser)
    scenarios.add_arguments(parser)
    group = parser.add_argument_group("the job")
    group.add_argument(
        "--replicas", type=quantities.count, default=8, metavar="N", help="data-parallel pipelines in all (8)"
    )
    group.add_argument(
        "--slower",
        type=quantities.listed(quantities.factor),
        required=True,
        metavar="FACTORS",
        help="how many times as long the slow ones take, each one, with commas: 1.2 or 1.2,1.1; all others take 1",
    )
    group.add_argument(
        "--slowdown",
        type=quantities.fraction,
        default=0.0,
        metavar="SHARE",
        help="how much longer than its slowest pipeline at default clocks the job may take (0%%)",
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")


def run(options: Namespace) -> None:
    if not len(options.slower) <= options.replicas <= _MOST_REPLICAS:
        raise ArgumentError(
            f"--replicas is {options.replicas}; give all pipelines of the job, the {len(options.slower)} of --slower "
            f"among them, up to {_MOST_REPLICAS}."
        )
    scenario = scenarios.load(options.profile, options)
    factors = [*options.slower, *[1.0] * (options.replicas - len(options.slower))]
    with terminal.working("computing the frontier"):
        known = frontier(scenario.pipeline, _POINTS)
    job = share_out([Replica(known, factor) for factor in factors], options.slowdown)
    if options.json:
        shares = [{"factor": factor, **asdict(share)} for factor, share in zip(factors, job.shares, strict=True)]
        print(document.dumps({**asdict(job), "savings": job.savings, "shares": shares}))
    else:
        terminal.show(_table(f"{scenario.title}; {options.replicas} such pipelines", factors, job))


def _table(title: str, factors: list[float], job: Job) -> terminal.Table:
    share_of = dict(zip(factors, job.shares, strict=True))
    rows = [
        (
            f"{count} x {factor:g}",
            f"{share_of[factor].t_min_s:.4f}",
            f"{share_of[factor].t_opt_s:.4f}",
            f"{count * share_of[factor].baseline_energy_j:.1f}",
            f"{count * share_of[factor].energy_j:.1f}",
            terminal.change(share_of[factor].energy_j, share_of[factor].baseline_energy_j),
        )
        for factor, count in sorted(Counter(factors).items(), reverse=True)
    ]
    rows += [
        (
            name,
            f"{max(share.t_min_s for share in job.shares):.4f}",
            time,
            f"{job.baseline_energy_j:.1f}",
            f"{energy_j:.1f}",
            terminal.change(energy_j, job.baseline_energy_j),
        )
        for name, time, energy_j in (
            ("all, each by its own T_min", "", job.intrinsic_energy_j),
            ("all", f"{job.iteration_time_s:.4f}", job.energy_j),
        )
    ]
    return terminal.table(
        title,
        ("pipelines", "T_min, s", "planned for, s", "default clocks, J", "least, J", "change"),
        rows,
        "joules of one iteration, waits for the slowest counted; least: the bound, which plans come near to (that of a "
        "pipeline: joulepath plan ... --straggler)",
    )
