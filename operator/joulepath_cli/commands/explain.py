"""`joulepath explain`: why instructions got their clocks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document, goal
from joulepath_cli.commands import scenario as scenarios
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import Explainer, Instruction, Saving

__all__ = ["add_arguments", "run"]

_PARTS: Final = ("warm-up", "steady", "cool-down", "waits")


def add_arguments(parser: ArgumentParser) -> None:
    scenarios.add_profile(parser)
    scenarios.add_arguments(parser)
    goal.add_arguments(parser)
    parser.add_argument(
        "--instruction",
        action="append",
        default=[],
        metavar="STAGE:NAME",
        help="such as 3:F0, the forward of microbatch 0 on stage 3; may be given several times",
    )
    parser.add_argument(
        "--top",
        type=quantities.count,
        default=5,
        metavar="N",
        help="where no instruction is named: the costliest, one of each stage and kind (5)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: Namespace) -> None:
    scenario = scenarios.load(options.profile, options)
    wanted = [Instruction.parse(text) for text in options.instruction]
    with terminal.working("planning") as step:
        made = goal.make(scenario, options, step)
    explainer = Explainer(scenario.pipeline, made.plan, scenario.lags, made.pace_s)
    wanted = wanted or list(explainer.costliest(options.top))
    with terminal.working("asking the referee", len(wanted)) as step:
        found = []
        for one in wanted:
            found.append(explainer.explain(one))
            step()
    if options.json:
        told = [{**asdict(one), "reason": one.reason, "sentences": one.sentences} for one in found]
        saved = [{**asdict(one), "saved_j": one.saved_j} for one in explainer.savings()]
        print(document.dumps({"savings": saved, "instructions": told}))
    else:
        table = [] if options.instruction else [_savings(scenario, explainer.savings())]
        terminal.show(*table, "\n\n".join(" ".join(one.sentences) for one in found))


def _savings(scenario: Scenario, savings: Sequence[Saving]) -> terminal.Table:
    """A row for each stage of each rank, a column for each part, and the sums of both."""
    parts = tuple(dict.fromkeys(one.part for one in sorted(savings, key=lambda one: _PARTS.index(one.part))))
    cells: dict[tuple[int, int], dict[str, float]] = {}
    for one in savings:
        cells.setdefault((one.rank, one.stage), {})[one.part] = one.saved_j
    named = {f"{rank}: {stage}": row for (rank, stage), row in sorted(cells.items())}
    named["all"] = {part: sum(row.get(part, 0.0) for row in cells.values()) for part in parts}
    base_j = sum(one.default_j for one in savings)
    rows = [
        (
            name,
            *(f"{row[part]:.1f}" if part in row else "" for part in parts),
            f"{sum(row.values()):.1f}",
            terminal.share(sum(row.values()) / base_j, 2),
        )
        for name, row in named.items()
    ]
    return terminal.table(
        f"{scenario.title}; joules of an iteration that the plan saves",
        ("rank: stage", *parts, "in all", "of all"),
        rows,
        "waits: those of the rank, told with its first stage; of all: of what an iteration costs at default clocks",
    )
