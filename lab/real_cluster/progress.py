"""What a long step is doing, and how far it is by the time it usually takes.

The tools under us (compilers, debootstrap) tell no percentage, so a bar runs by the expected time and waits at 98%
if that was too short. Where standard error is no terminal, a step prints one line at its start and one at its end.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["QUIET_UNDER_S", "say", "step"]


QUIET_UNDER_S: Final = 2.0


def say(text: str) -> None:
    """One line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(name: str, expected_s: float) -> Iterator[None]:
    """Show that `name` runs, usually for `expected_s` seconds (measured on two cores)."""
    console = Console(stderr=True)
    begin = time.monotonic()
    if not console.is_terminal:
        if expected_s > QUIET_UNDER_S:
            say(f"{name} (about {expected_s:.0f} s)")
        yield
        say(f"{name}: done in {time.monotonic() - begin:.1f} s")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn(f"of about {expected_s:.0f} s"),
    )
    done = threading.Event()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=expected_s)

        def advance() -> None:
            while not done.wait(0.2):
                progress.update(task, completed=min(time.monotonic() - begin, 0.98 * expected_s))

        ticker = threading.Thread(target=advance, daemon=True)
        ticker.start()
        try:
            yield
            progress.update(task, completed=expected_s)
        finally:
            done.set()
            ticker.join()
