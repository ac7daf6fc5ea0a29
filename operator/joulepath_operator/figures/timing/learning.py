"""When messages leave and are awaited, learnt from timelines at default clocks.

By default each leaves when its instruction ends, is awaited by the one that takes it, and holds up nobody. A rank that
waits longer than that explains, again and again, waits for something that leaves later or that it needs later, or for a
receiver. Each way of exchanging says when an instruction could have begun: what is seen beyond that is unexplained, and
a begin far sooner than that rules the way out. What explains most is taken, as long as that is much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from math import inf
from typing import Final, TypeAlias

from joulepath_crds import Instruction
from joulepath_operator.facts.exchanges import Exchanges, Way
from joulepath_operator.facts.iteration import RankIteration
from joulepath_operator.figures.timing.timelines import Iteration, Timelines

__all__ = ["learnt_exchanges"]

_SOONER: Final = 2.0
"""What beginning too soon weighs, beside beginning too late: the host's gaps are no reason for it."""
_TOO_SOON: Final = 0.5
"""Of the length of what is waited for: who begins sooner by more didn't wait for it. So no rank is ever thought to wait
for itself: on the way around a circle, no wait is shortened by as much as what is waited for lasts."""
_LEAST_SHARE: Final = 0.01
"""Of the ranks' time: what is explained more must be as much at least, ..."""
_LEAST_GAIN: Final = 0.2
"""... and as much of what was unexplained before. Hosts take up to a few per cent between instructions, at random."""
_AT_ONCE: Final = 2
"""Pipelines that it is learnt from, ..."""
_ENOUGH_RANKS: Final = 16
"""... this many ranks of each: as a rule all do alike, ..."""
_ENOUGH_INSTRUCTIONS: Final = 1024
"""... and of a rank warm-up and some of the steady state. Each way of exchanging takes a look at all of these, so this
takes seconds; that all others do so too takes one look at each."""
_HELD_SHARE: Final = 0.02
"""Of a rank's time: what is explained by one way's being held must be as much, and what speaks against it less."""

Pipeline: TypeAlias = Sequence[RankIteration]


def learnt_exchanges(pipelines: Sequence[Pipeline]) -> tuple[Exchanges, int]:
    """What most of these pipelines, replicas of each other, do alike, and how many of them do otherwise.

    What a few ranks do says nothing of the others where those are disturbed, or do otherwise: then it is learnt from
    others. Where nothing explains most pipelines, as hosts are slow at random, the default is as good as anything.
    """
    for part in _parts(pipelines):
        found = _learnt([_read(one) for one in part])
        if found.held:
            unheld = replace(found, held=frozenset())
            found = replace(unheld, held=_held([_read(one) for one in pipelines[:_AT_ONCE]], unheld))
        odd = sum(not _fits(_read(one), found) for one in pipelines)  # one at a time: of a large job each takes memory
        if odd <= (len(pipelines) - 1) // 2:
            return found, odd
    return Exchanges(), 0


def _read(pipeline: Pipeline) -> Timelines:
    return Timelines(pipeline, _ENOUGH_INSTRUCTIONS)


def _parts(pipelines: Sequence[Pipeline]) -> Iterator[list[Pipeline]]:
    """What to learn from, one after the other: ranks from the first stage on, then those up to the last."""
    parts = slice(None, _ENOUGH_RANKS), slice(-_ENOUGH_RANKS, None)
    for ranks in parts if len(pipelines[0]) > _ENOUGH_RANKS else parts[:1]:
        for at in range(0, len(pipelines), _AT_ONCE):
            yield [one[ranks] for one in pipelines[at : at + _AT_ONCE]]


def _fits(pipeline: Timelines, exchanges: Exchanges) -> bool:
    """Whether a whole pipeline may exchange so: nobody begins far too soon, and what is unexplained is little, or less
    than by default."""
    left_s, little_s = _unexplained_s([pipeline], exchanges), _LEAST_SHARE * _length_s(pipeline)
    return left_s < inf and (left_s <= little_s or left_s < _unexplained_s([pipeline], Exchanges()))


def _learnt(pipelines: Sequence[Timelines]) -> Exchanges:
    neighbours = sorted({Exchanges.neighbours(*two) for pipeline in pipelines for two in pipeline.behind.items()})
    whole_s = sum(map(_length_s, pipelines))
    best, best_s = Exchanges(), _unexplained_s(pipelines, Exchanges())
    while best_s > _LEAST_SHARE * whole_s:
        least_s = max(_LEAST_SHARE * whole_s, _LEAST_GAIN * best_s)
        ways = [
            (replace(best, unsent=best.unsent | unsent, unawaited=best.unawaited | unawaited), least_s)
            for one in neighbours
            for unsent, unawaited in (({one}, set()), (set(), {one}), ({one}, {one}))
        ]
        if not best.held and (held := _held(pipelines, best)):
            ways.append((replace(best, held=held), 0.0))
        left = [(_unexplained_s(pipelines, way), at) for at, (way, _) in enumerate(ways)]
        better = [(left_s, at) for left_s, at in left if best_s - left_s > ways[at][1]]
        if not better:
            break
        best_s, at = min(better)
        best = ways[at][0]
    return best


def _length_s(pipeline: Timelines) -> float:
    """All ranks' seconds from the first begin to the last end."""
    return sum(
        max(span.end_s for span in spans.values()) - min(span.begin_s for span in spans.values())
        for spans in pipeline.of_rank
        if spans
    )


def _unexplained_s(pipelines: Sequence[Timelines], exchanges: Exchanges) -> float:
    """How much later than they could all instructions begin, if messages are exchanged so; infinite if they aren't."""
    total_s = 0.0
    for pipeline in pipelines:
        seen = pipeline.joined(exchanges)
        for one, could_s in _could_begin_s(pipeline, seen):
            total_s += _weighed_s(seen.spans[one].begin_s - could_s)
        for message in chain(*seen.awaited.values()):
            soon_s = seen.spans[message.sent_after].end_s - seen.spans[message.awaited_before].begin_s
            if soon_s > _TOO_SOON * max(seen.length_s(message.source), seen.length_s(message.sent_after)):
                return inf
    return total_s


def _could_begin_s(pipeline: Timelines, seen: Iteration) -> Iterator[tuple[Instruction, float]]:
    """Each instruction but the first of its rank, and when all that it waits for was there."""
    for order in pipeline.orders:
        for before, one in pairwise(order):
            could_s = seen.spans[before].end_s
            for message in seen.awaited.get(one, ()):
                lag_s = seen.lag_s.get(pipeline.pair(*message.way), 0.0)
                could_s = max(could_s, seen.spans[message.sent_after].end_s + max(0.0, lag_s))
            could_s = max([could_s, *(seen.spans[busy].end_s for busy in seen.held.get(one, ()))])
            yield one, could_s


def _weighed_s(late_s: float) -> float:
    return late_s if late_s > 0 else -late_s * _SOONER


def _held(pipelines: Sequence[Timelines], exchanges: Exchanges) -> frozenset[Way]:
    """The ways on which ranks are held up, if messages are exchanged so.

    If one is for sure, all are on which nobody went on too soon: at default clocks a receiver may always be there, and
    under a plan not.
    """
    ranks = sum(len(pipeline.orders) for pipeline in pipelines)
    least_s = _HELD_SHARE * sum(map(_length_s, pipelines)) * len(pipelines) / max(1, ranks)
    gain_s = defaultdict[Way, float](float)
    for pipeline in pipelines:
        seen = pipeline.joined(exchanges)
        could_s = dict(_could_begin_s(pipeline, seen))
        for message in chain(*seen.awaited.values()):
            one, busy = pipeline.behind.get(message.sent_after), pipeline.before.get(message.awaited_before)
            if one is not None and busy is not None:
                way = message.way
                begin_s, free_s = seen.spans[one].begin_s, seen.spans[busy].end_s
                if free_s - begin_s > _TOO_SOON * seen.length_s(busy):
                    gain_s[way] = -inf
                gain_s[way] += _weighed_s(begin_s - could_s[one]) - _weighed_s(begin_s - max(could_s[one], free_s))
    if max(gain_s.values(), default=0.0) <= least_s:
        return frozenset()
    return frozenset(way for way, gain in gain_s.items() if gain > -least_s)
