"""When messages leave and are awaited, learnt from timelines at default clocks.

By default each leaves when its instruction ends, and is awaited by the one that takes it. A rank that waits longer than
that explains, again and again, waits for something that leaves later or for something that it needs later. Each way of
exchanging says when an instruction could have begun: what is seen beyond that is unexplained, and a begin sooner than
that rules the way out. What explains most is taken, as long as it explains far more than what was taken before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from joulepath_operator.facts.exchanges import Exchanges
from joulepath_operator.figures.timelines import Timelines

__all__ = ["learnt_exchanges"]

_SOONER: Final = 2.0
"""What beginning too soon weighs, beside beginning too late: the host's gaps are no reason for it."""
_LEAST_SHARE: Final = 0.01
"""Of the ranks' time: what is explained more must be as much at least, ..."""
_LEAST_GAIN: Final = 0.2
"""... and as much of what was unexplained before. Hosts take up to a few per cent between instructions, at random."""


def learnt_exchanges(pipelines: Sequence[Timelines]) -> Exchanges:
    """What these pipelines, replicas of each other, do alike."""
    orders = [order for one in pipelines for order in one.orders]
    neighbours = sorted({(before.kind, one.kind) for order in orders for before, one in pairwise(order)})
    whole_s = sum(_length_s(one) for one in pipelines)
    best, best_s = Exchanges(), _unexplained_s(pipelines, Exchanges())
    while best_s > _LEAST_SHARE * whole_s:
        tried = [
            Exchanges(best.unsent | unsent, best.unawaited | unawaited)
            for one in neighbours
            for unsent, unawaited in (({one}, set()), (set(), {one}), ({one}, {one}))
        ]
        left_s, index = min((_unexplained_s(pipelines, way), index) for index, way in enumerate(tried))
        if best_s - left_s < max(_LEAST_SHARE * whole_s, _LEAST_GAIN * best_s):
            break
        best, best_s = tried[index], left_s
    return best


def _length_s(pipeline: Timelines) -> float:
    """All ranks' seconds from the first begin to the last end."""
    return sum(
        max(span.end_s for span in spans.values()) - min(span.begin_s for span in spans.values())
        for spans in pipeline.of_rank
        if spans
    )


def _unexplained_s(pipelines: Sequence[Timelines], way: Exchanges) -> float:
    total_s = 0.0
    for pipeline in pipelines:
        seen = pipeline.joined(way)
        for order in pipeline.orders:
            for before, one in pairwise(order):
                could_s = seen.spans[before].end_s
                for message in seen.awaited.get(one, ()):
                    lag_s = max(0.0, seen.lag_s.get(pipeline.pair(message.source.stage, message.target.stage), 0.0))
                    could_s = max(could_s, seen.spans[message.sent_after].end_s + lag_s)
                late_s = seen.spans[one].begin_s - could_s
                total_s += late_s if late_s > 0 else -late_s * _SOONER
    return total_s
