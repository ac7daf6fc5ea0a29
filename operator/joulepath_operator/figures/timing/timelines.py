"""A pipeline's iteration at default clocks, the ranks' timelines brought to one clock.

Each rank counts from the begin of its own iteration, so that two ranks' times differ by an unknown offset. The least
lag from one rank to another is delay + offset, that of the way back delay - offset: half the sum is the delay, half the
difference the offset, and no wall clock is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import inf
from typing import NamedTuple

from joulepath_crds import Instruction
from joulepath_operator.facts.exchanges import Exchanges, Way
from joulepath_operator.facts.iteration import RankIteration

__all__ = ["Iteration", "Message", "Span", "Timelines"]


class Span(NamedTuple):
    """Begin and end of an instruction, on its rank's own clock or on the pipeline's common one."""

    begin_s: float
    end_s: float


class Message(NamedTuple):
    """What `source` made goes its way to another rank: it leaves when `sent_after` ends, and has come before
    `awaited_before` begins."""

    source: Instruction
    sent_after: Instruction
    way: Way
    awaited_before: Instruction


@dataclass(frozen=True, slots=True)
class Iteration:
    """On the clock of the first stage's rank.

    lag_s: from the end to the begin that a message joins at least, by the two ranks, the lesser first.
    awaited: the messages, by who waits.
    held: what has ended on other ranks before an instruction begins, since a message holds up its rank until then.
    """

    spans: Mapping[Instruction, Span]
    lag_s: Mapping[tuple[int, int], float]
    awaited: Mapping[Instruction, Sequence[Message]]
    held: Mapping[Instruction, Sequence[Instruction]]

    def length_s(self, one: Instruction) -> float:
        """How long it ran."""
        return self.spans[one].end_s - self.spans[one].begin_s


class Timelines:
    """What the ranks of a pipeline have told, each on its own clock; of each, at most so many instructions."""

    def __init__(self, ranks: Sequence[RankIteration], instructions: int | None = None) -> None:
        self.of_rank = [
            {
                Instruction.parse(label, stage): Span(begin_s, end_s)
                for label, stage, begin_s, end_s in islice(
                    zip(rank.instructions, rank.stage_of, rank.begin_s, rank.end_s, strict=True), instructions
                )
            }
            for rank in ranks
        ]
        self.orders = [list(spans) for spans in self.of_rank]
        self.behind = {one: behind for order in self.orders for one, behind in pairwise(order)}
        self.before = {behind: one for one, behind in self.behind.items()}
        self.rank_of = {stage: rank.rank for rank in ranks for stage in rank.stages}

    def pair(self, one: int, other: int) -> tuple[int, int]:
        """The ranks of two stages, the lesser first; -1 for a stage that none runs."""
        ranks = self.rank_of.get(one, -1), self.rank_of.get(other, -1)
        return min(ranks), max(ranks)

    def joined(self, exchanges: Exchanges) -> Iteration:
        """All on one clock, if messages are exchanged so."""
        own = {one: span for spans in self.of_rank for one, span in spans.items()}
        awaited, held = dict[Instruction, list[Message]](), dict[Instruction, list[Instruction]]()
        least: dict[tuple[int, int], float] = {}
        sent = {one: at for order in self.orders for one, at in exchanges.sent_after(order).items()}
        made = {half: one for one in own for half in one.halves}
        for order in self.orders:
            for taker, at in exchanges.awaited_before(order).items():
                for way, source in _senders(taker, made):
                    ranks = self.rank_of.get(way[0], -1), self.rank_of.get(way[1], -1)
                    if ranks[0] != ranks[1] and -1 not in ranks:
                        awaited.setdefault(at, []).append(Message(source, sent[source], way, at))
                        lag = own[at].begin_s - own[sent[source]].end_s
                        least[ranks] = min(least.get(ranks, inf), lag)
                        one, busy = self.behind.get(sent[source]), self.before.get(at)
                        if way in exchanges.held and one is not None and busy is not None:
                            held.setdefault(one, []).append(busy)
        offset_s, lag_s = _offsets_and_lags(least, self.rank_of.get(0))
        later = {one: offset_s.get(self.rank_of.get(one.stage, -1), 0.0) for one in own}
        spans = {one: Span(span.begin_s + later[one], span.end_s + later[one]) for one, span in own.items()}
        return Iteration(spans, lag_s, awaited, held)


def _senders(taker: Instruction, made: Mapping[Instruction, Instruction]) -> Iterator[tuple[Way, Instruction]]:
    """Whatever other stages send to an instruction: activations, or the gradient of a backward, whole or half."""
    for one in taker.halves:
        kinds, stage = ("F", one.stage - 1) if one.kind == "F" else ("BI" if one.kind in "BI" else "", one.stage + 1)
        for kind in kinds:
            if (source := made.get(Instruction(stage, kind, one.microbatch))) is not None:
                yield (stage, one.stage), source


def _offsets_and_lags(
    lags_s: Mapping[tuple[int, int], float], first: int | None
) -> tuple[dict[int, float], dict[tuple[int, int], float]]:
    """What to add to each rank's clock to come to that of the first, and the lag of each pair of ranks.

    Half the sum of a pair's least lags is its lag if in both directions somebody waited for nothing else, and more
    where the receiver always had other work: the ranks' clocks are joined by the pairs with the least. With the clocks
    known, the lag of the others is the lesser of the two.
    """
    both = {pair: (lag + lags_s[pair[::-1]]) / 2 for pair, lag in lags_s.items() if pair[::-1] in lags_s}
    offset_s = {} if first is None else {first: 0.0}
    while reach := [(mean, pair) for pair, mean in both.items() if pair[0] in offset_s and pair[1] not in offset_s]:
        mean, (known, new) = min(reach)
        offset_s[new] = offset_s[known] + mean - lags_s[known, new]
    found: dict[tuple[int, int], float] = {}
    for (source, target), lag in lags_s.items():
        if source in offset_s and target in offset_s:
            pair = min(source, target), max(source, target)
            found[pair] = min(found.get(pair, inf), lag + offset_s[target] - offset_s[source])
    return offset_s, found
