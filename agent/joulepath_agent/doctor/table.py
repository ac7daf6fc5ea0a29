"""The findings as a table of 80 columns: what, figure, verdict, and under them what it means for plans. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

from joulepath_agent.doctor.verdicts import Finding

__all__ = ["WIDTH", "table"]

WIDTH: Final = 80
_WHAT: Final = 22
_VERDICT: Final = 8
_INDENT: Final = "    "


def table(title: str, findings: Iterable[Finding]) -> str:
    """Lines of at most 80 characters."""
    lines = [*textwrap.wrap(title, WIDTH), "-" * WIDTH]
    figure_width = WIDTH - _WHAT - _VERDICT - 1
    for finding in findings:
        lines.append(
            f"{finding.what:{_WHAT}}{finding.figure:{figure_width}.{figure_width}} {finding.verdict:>{_VERDICT}}"
        )
        lines += textwrap.wrap(finding.meaning, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join(lines)
