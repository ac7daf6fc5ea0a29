"""A few simulated hours of a node: all that a day brings reaches clocks and agent, and leaves nothing behind.

`benchmarks/soak.py` lives a whole day, and judges memory; here what can be counted is.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Final

import pytest

from tests.agent.room import wait_until
from tests.agent.soaking.day import Day, Look, Node

HOURS, PACE = 4.2, 1000.0


_POOLED: Final = 8
"""Threads of a part that begin when they are first needed: of two pools at most."""


def idle(node: Node) -> Counter[str]:
    """Descriptors of each part, and threads."""
    had: Counter[str] = Counter()
    for part, process in node.parts.items():
        look = Look.at(process.pid)
        had[f"descriptors of the {part}"] = look.descriptors
        had[f"threads of the {part}"] = look.threads
    return had


@pytest.mark.slow
def test_what_a_day_brings_comes_and_goes() -> None:
    with ExitStack() as stack:
        node = Node(PACE, stack)
        Day(node, 1.1).pass_by()
        wait_until(lambda: not node.cluster.ranks, "the ranks are gone")
        before = idle(node) + Counter({f"threads of the {part}": _POOLED for part in node.parts})
        day = Day(node, HOURS)
        day.pass_by()
        wait_until(lambda: not node.cluster.ranks, "the ranks are gone")
        wait_until(lambda: idle(node) <= before, f"no more is there than {before}")
        fed = day.fed
        named = (
            "changes of plans",
            "jobs",
            "lists of plans",
            "partings of agent and clocks",
            "reads of pods",
            "reports",
        )
        assert all(fed[what] for what in (*named, "iterations of a rank", "questions to the kubelet", "/metrics")), fed
        assert node.cluster.blocks, "what was fed was measured"
