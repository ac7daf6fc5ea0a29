"""Earliest and latest starts of one assignment of durations that grows step by step, and what slack they leave."""

from __future__ import annotations

import heapq

from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.network import RESOLUTION_S

__all__ = ["Timing"]


class Timing:
    """Earliest and latest starts for a period T, kept exact while durations grow.

    Durations are feasible for T when every constraint, the wraps among them, can hold at once: when no cycle of
    the graph is longer than the periods that it spans. Starts are counted from the first node's.
    """

    def __init__(self, graph: Graph, period_s: float, durations_s: list[float]) -> None:
        self.period_s = period_s
        self.durations_s = list(durations_s)
        size = len(durations_s)
        self._next: list[list[tuple[int, float]]] = [[] for _ in range(size)]
        self._previous: list[list[tuple[int, float]]] = [[] for _ in range(size)]
        wrapped = [(last, first, gap - period_s) for last, first, gap in graph.wraps]
        for source, target, gap in (*graph.edges, *wrapped):
            self._next[source].append((target, gap))
            self._previous[target].append((source, gap))
        # Beyond this no event of a feasible iteration starts: a start that passes it is on a cycle too long.
        limit = period_s * (len(graph.wraps) + 1)
        self.earliest_s = [-limit] * size
        self.earliest_s[0] = 0.0
        self.latest_s = [limit] * size
        self.latest_s[0] = 0.0
        self.feasible = self._push_starts(range(size)) is not None
        if self.feasible:
            self._pull_starts(range(size))

    def slack_s(self, node: int) -> float:
        """How much later this node may start, or how much longer it may last, if all else stays."""
        return self.latest_s[node] - self.earliest_s[node]

    def lengthen(self, changes: dict[int, float]) -> bool:
        """Give these nodes these longer durations; where T would not hold, change nothing and return False."""
        before = {node: self.durations_s[node] for node in changes}
        for node, duration in changes.items():
            self.durations_s[node] = duration
        moved = self._push_starts(changes)
        if moved is None:
            for node, duration in before.items():
                self.durations_s[node] = duration
            return False
        self._pull_starts(changes)
        return True

    def _push_starts(self, seeds: range | dict[int, float]) -> dict[int, float] | None:
        """Propagate earliest starts from the seeds; None, and nothing changed, if one passes its latest start."""
        earliest, latest, durations = self.earliest_s, self.latest_s, self.durations_s
        old: dict[int, float] = {}
        heap = sorted(seeds)
        queued = set(heap)
        while heap:
            node = heapq.heappop(heap)
            queued.discard(node)
            end = earliest[node] + durations[node]
            for target, gap in self._next[node]:
                start = end + gap
                if start > earliest[target] + RESOLUTION_S:
                    if start > latest[target] + RESOLUTION_S:
                        for changed, value in old.items():
                            earliest[changed] = value
                        return None
                    old.setdefault(target, earliest[target])
                    earliest[target] = start
                    if target not in queued:
                        queued.add(target)
                        heapq.heappush(heap, target)
        return old

    def _pull_starts(self, seeds: range | dict[int, float]) -> None:
        latest, durations = self.latest_s, self.durations_s
        heap: list[int] = []
        queued: set[int] = set()

        def relax(node: int) -> None:
            if not self._next[node]:
                return
            start = min(latest[target] - gap for target, gap in self._next[node]) - durations[node]
            if start < latest[node] - RESOLUTION_S:
                latest[node] = start
                for source, _ in self._previous[node]:
                    if source not in queued:
                        queued.add(source)
                        heapq.heappush(heap, -source)

        for node in sorted(seeds, reverse=True):
            relax(node)
        while heap:
            node = -heapq.heappop(heap)
            queued.discard(node)
            relax(node)
