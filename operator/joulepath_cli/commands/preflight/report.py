"""Findings as people read them, in 80 columns wherever they go, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import fill
from typing import Final

from joulepath_cli.commands.preflight.finding import Finding, Verdict, counted
from joulepath_cli.commands.preflight.judge import Judgement

__all__ = ["as_json", "as_text"]

_WIDTH: Final = 80
_INDENT: Final = " " * 9
_DEEPER: Final = " " * 12
_ON: Final = " \\"
"""To a shell, that its command goes on."""


def as_text(judgement: Judgement) -> str:
    """Verdict, what was looked at, what was seen, and under it the remedy; the sum of it comes last."""
    return "\n".join([*(line for one in judgement.findings for line in _lines(one)), "", _sum(judgement)])


def as_json(judgement: Judgement) -> str:
    """The same for programs."""
    document = {
        "works": judgement.works,
        "injection": judgement.injection,
        "findings": [asdict(one) for one in judgement.findings],
    }
    return json.dumps(document, indent=2)


def _lines(finding: Finding) -> Iterator[str]:
    aside = "" if finding.needed or finding.verdict is Verdict.OK else " (no obstacle)"
    yield _wrapped(f"{finding.verdict:<9}{finding.check}{aside}: {finding.seen}", _INDENT)
    if finding.remedy:
        yield _wrapped(f"{_INDENT}-> {finding.remedy}", _DEEPER)
    if finding.command:
        yield _wrapped(f"{_DEEPER}{finding.command}", _DEEPER, _WIDTH - len(_ON)).replace("\n", f"{_ON}\n")


def _wrapped(text: str, indent: str, width: int = _WIDTH) -> str:
    return fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _sum(judgement: Judgement) -> str:
    if missing := sum(one.is_missing for one in judgement.findings):
        return f"Joulepath can't work here yet: {counted(missing, 'thing')} missing that it needs."
    way = f", with injection: {judgement.injection}" if judgement.injection else ""
    return _wrapped(f"Nothing that Joulepath needs is seen to be missing{way}.", "")
