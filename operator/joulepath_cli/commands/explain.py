"""`joulepath explain`: why instructions got their clocks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document, goal
from joulepath_cli.commands import scenario as scenarios
from joulepath_planner import Explainer, Instruction

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "profile", metavar="PROFILE", help="Zeus's CSV, an EnergyProfile's YAML, or energyprofile/NS/NAME"
    )
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
        help="where no instruction is named: the costliest, one of each stage, kind and clock (5)",
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
        print(document.dumps(told))
    else:
        terminal.show("\n\n".join(" ".join(one.sentences) for one in found))
