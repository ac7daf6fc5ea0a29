"""The command `joulepath`: the planner for people, from a profile on disk or in a cluster to tables, JSON and pictures.

It computes nothing that the planner doesn't: it reads, asks, and shows.
"""

from __future__ import annotations

__all__: list[str] = []
