"""The metrics reference, `docs/metrics.md`, from the two tables of the code; `make reference` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from joulepath_agent import metrics as agent
from joulepath_crds import MetricRow
from joulepath_operator import metrics as operator

__all__ = ["PATH", "text"]

PATH: Final = Path(__file__).parents[1] / "docs/metrics.md"
_HEAD: Final = """\
# Metrics

Made from the tables in the code by `make reference`. Base units: joules, watts, hertz, seconds. Labels of GPUs are as
dcgm-exporter's users know them; what isn't known (a GPU without a rank has no pod) is the empty text. Where GPUs are
virtual, so is every figure here.

`gpu` is NVML's index and `hostname` the node's name, as dcgm-exporter writes them since 4.6.0-4.8.3 (`Hostname`
before). Join with its series `on (UUID)`, which both have in all releases; the chart's dashboard joins with none.
"""


def text() -> str:
    """The whole file."""
    return "\n".join(
        [
            _HEAD,
            "## The agent, one on each node\n",
            *_table(agent.TABLE),
            "\n## The operator\n",
            *_table(operator.TABLE),
            "",
        ]
    )


def _table(rows: Iterable[MetricRow]) -> list[str]:
    lines = ["| metric | type | labels | what it says |", "|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.type} | {labels} | {row.help} |")
    return lines


if __name__ == "__main__":
    PATH.write_text(text())
