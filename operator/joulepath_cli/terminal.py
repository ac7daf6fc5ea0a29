"""What people see: tables on standard output, progress on standard error; both plain where it is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["Table", "change", "share", "show", "table", "working"]

_WIDTH_OF_A_FILE: Final = 160


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """The first column left, the others right. Headings may be broken where it is narrow, cells never are."""
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title or None,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
    )
    for place, heading in enumerate(headings):
        width = max(map(len, (*heading.split(), *(row[place] for row in rows))), default=0)
        made.add_column(heading, justify="right" if place else "left", min_width=width)
    for row in rows:
        made.add_row(*row)
    return made


def show(*parts: Table | str) -> None:
    """Print tables and sentences."""
    terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, width=None if terminal else _WIDTH_OF_A_FILE, no_color=not terminal, highlight=False
    )
    with console.capture() as rendered:  # rich would end the program where the reader has gone
        for part in parts:
            # A table that is too wide is rather broken at the edge than cut off there.
            console.print(part, markup=False, soft_wrap=isinstance(part, Table) or not terminal)
    encoding = sys.stdout.encoding or "utf-8"  # names of files may have bytes that are no text
    sys.stdout.write(rendered.get().encode(encoding, "replace").decode(encoding))


def change(now: float, before: float, digits: int = 2) -> str:
    """`-15.90%`, and no minus before nothing."""
    return share(now / before - 1, digits, "+")


def share(value: float, digits: int = 3, sign: str = "") -> str:
    """A fraction in percent, and no minus before nothing."""
    return f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}%"


@contextmanager
def working(label: str, steps: int | None = None) -> Iterator[Callable[[], None]]:
    """A progress bar while the body runs, gone after it; call what it gives after each step. Only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), transient=True,
        console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task(label, total=steps)
        yield lambda: bar.advance(task)
