"""`joulepath resume`: plans are carried out again from their next block on; 1 if a node hasn't heard that in time."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from joulepath_cli.commands.pause.switch import add_waiting, switch

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    add_waiting(parser)


def run(options: Namespace) -> int:
    return switch(False, "", options.timeout)
