"""Running a command of the machine: its output as text, or an error that says which command said what."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["CommandError", "NotYetError", "run", "until"]


class CommandError(RuntimeError):
    """A command ended with a status that isn't zero; the message holds its last lines."""


class NotYetError(RuntimeError):
    """What an attempt of `until` raises to say what it waits for."""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Standard output of `argv`; `env` is added to the environment.

    Raises:
        CommandError: It ended with another status than 0.
    """
    words = [str(word) for word in argv]
    environment = {**os.environ, **env} if env else None
    done = subprocess.run(
        words,
        input=stdin if stdin is not None else "",
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise CommandError(f"`{' '.join(words)[:300]}` ended with status {done.returncode}:\n{said}")
    return done.stdout


def until(what: str, limit_s: float, attempt: Callable[[], object], pause_s: float = 0.1) -> None:
    """Repeat `attempt` until it neither raises nor returns False; after `limit_s` seconds say what it last said."""
    end = time.monotonic() + limit_s
    while True:
        try:
            if attempt() is not False:
                return
            reason = "not yet"
        except (CommandError, NotYetError, OSError) as error:
            reason = str(error)
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: still not so after {limit_s:.0f} s: {reason}")
        time.sleep(pause_s)
