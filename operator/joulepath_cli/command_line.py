"""The command line: its commands by name, and what becomes of their errors."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn

from joulepath_planner import PlannerError

__all__ = ["run"]

_MOST_CHARACTERS: Final = 1000
_COMMANDS: Final = {
    "plan": "the clock of every instruction, and what that saves",
    "frontier": "the least energy for each iteration time",
    "compare": "plans side by side",
    "explain": "what is saved where, and why instructions got their clocks",
    "replay": "somebody's own clocks, beside ours for the time that they take",
    "stragglers": "which iteration time for each pipeline of a data-parallel job",
    "profile": "EnergyProfiles of published profiles, and the other way round",
    "preflight": "what a cluster lacks for Joulepath, with the remedy",
    "pause": "puts all GPUs of a cluster at default clocks, now, and says which nodes have heard of it",
    "resume": "lets the plans of a cluster be carried out again",
}
"""By the modules of `commands`. Only the one that is asked for is loaded: not all can be in the operator's image."""


class _Parser(ArgumentParser):
    """Says what is wrong in a sentence, without the usage of every option."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_sentence(message)} ({self.prog} --help tells more)\n")


def run(argv: Sequence[str]) -> int:
    """Run what a command line asks for; returns the exit status.

    Raises:
        SystemExit: As argparse does.
        ModuleNotFoundError: A package that the command needs is missing.
    """
    parser = _Parser(prog=_called(), description="Plans clocks for pipeline-parallel training.")
    parser.add_argument("--version", action="version", version=f"joulepath {version('joulepath')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    first = [one for one in argv if not one.startswith("-")][:1]
    asked = {one: import_module(f"joulepath_cli.commands.{one}") for one in first if one in _COMMANDS}
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name in asked:
            asked[name].add_arguments(command)
    options = parser.parse_args(argv)
    try:
        status: int | None = asked[options.command].run(options)
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error.filename is not None and error.strerror
        return _refuse(f"{error.filename or repr(error.filename)}: {error.strerror}" if named else str(error))
    except PlannerError as error:  # all of them are sentences
        return _refuse(str(error))
    return status or 0


def _called() -> str:
    """What it was called by: `kubectl energy pause` runs `kubectl-energy pause`."""
    return "kubectl energy" if Path(sys.argv[0]).stem == "kubectl-energy" else "joulepath"


def _refuse(message: str) -> int:
    print(f"{_called()}: {_sentence(message)}", file=sys.stderr)
    return 2


def _sentence(message: str) -> str:
    """On one line, whatever stands in a file's name, and with a point at its end."""
    line = " ".join(message.split("\n"))
    if len(line) > _MOST_CHARACTERS:
        return f"{line[:_MOST_CHARACTERS]}..."
    return line if line.endswith("?") else f"{line.rstrip('.')}."
