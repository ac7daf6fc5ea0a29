"""A metric as a row of a table: agent and operator each have one, made into collectors and held against the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MetricRow"]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric as Prometheus serves it: base units, counters end in `_total`."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
