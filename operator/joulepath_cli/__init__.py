"""The command `joulepath`: the planner for people, from a profile on disk or in a cluster to tables, JSON and pictures.

Of plans it computes nothing that the planner doesn't: it reads, asks, and shows. And it says what a cluster lacks, and
pauses its plans.

- `__main__`: the entry point
- `command_line`: the commands by name, and what becomes of their errors
- `commands`: what each of them reads, asks and shows
- `apiserver`: the cluster's API server
- `quantities`: how people write seconds, shares, watts and lists
- `terminal`: tables and progress
- `pictures`: SVG
"""

from __future__ import annotations

__all__: list[str] = []
