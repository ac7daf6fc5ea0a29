"""What is asked of a cluster, and the exit status: 1 if something is missing without which Joulepath does nothing."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from joulepath_cli.commands.preflight import cluster, report
from joulepath_cli.commands.preflight.judge import judge
from joulepath_cli.commands.preflight.runtimes import Injection

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-n",
        "--namespace",
        default="joulepath-system",
        metavar="NAME",
        help="where Joulepath is, or will be (joulepath-system)",
    )
    parser.add_argument(
        "--injection",
        choices=[one.value for one in Injection],
        help="the chart's injection that you mean to have (what is installed, or else what the nodes can have)",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="text or json (text)")


def run(options: Namespace) -> int:
    asked = Injection(options.injection) if options.injection else None
    judgement = judge(cluster.read(options.namespace), asked)
    print(report.as_json(judgement) if options.output == "json" else report.as_text(judgement))
    return 0 if judgement.works else 1
