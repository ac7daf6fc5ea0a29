"""What is asked of a cluster, and the exit status: 1 if a node hasn't said within the time that plans rest there."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from joulepath_cli.commands.pause.switch import add_waiting, switch

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for users: their EnergyPlans tell it")
    add_waiting(parser)


def run(options: Namespace) -> int:
    return switch(True, options.reason, options.timeout)
