"""Findings as people read them, in 80 columns wherever they go, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import fill
from typing import Final

from joulepath_cli.commands.preflight.finding import Finding, counted
from joulepath_cli.commands.preflight.judge import Judgement

__all__ = ["as_json", "as_text"]

_WIDTH: Final = 80
_INDENT: Final = " " * 9
_NEEDED: Final = "lacks"


def as_text(judgement: Judgement) -> str:
    """Line by line: verdict, what was looked at, what was seen; under it the remedy. The sum of it comes last."""
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
    optional = "" if finding.needed else " (optional)"
    yield _wrapped(f"{finding.verdict:<9}{finding.check}{optional}: {finding.seen}", _INDENT)
    if finding.remedy:
        yield _wrapped(f"{_INDENT}-> {finding.remedy}", f"{_INDENT}   ")


def _wrapped(text: str, indent: str) -> str:
    return fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _sum(judgement: Judgement) -> str:
    way = f", with injection: {judgement.injection}" if judgement.injection else ""
    missing = sum(one.is_missing for one in judgement.findings)
    if not missing:
        return f"Nothing that Joulepath needs is missing{way}, as far as it can be seen."
    return f'Joulepath can\'t work here yet: {counted(missing, "need")} missing, see "{_NEEDED}".'
