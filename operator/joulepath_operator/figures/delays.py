"""The delays that no clock changes: between two ranks, between two instructions of a rank, and after the last.

They come from the timelines at default clocks. Each rank counts from the begin of its own iteration, so that two
ranks' times differ by an unknown offset. The least lag from one rank to another is delay + offset, that of the way back
delay - offset: half the sum is the delay, half the difference the offset, and no wall clock is compared. With the
offsets known, an instruction whose rank was waiting for another shows what that way takes as a rule, and one that
waited for nothing but its predecessor the host's own gap between two instructions. At default clocks some kinds always
wait (a backward of the first stages, for its gradient), which under a plan, that uses up waits, don't: their gap is
taken to be that of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from statistics import fmean, median
from typing import NamedTuple, TypeVar

from joulepath_crds import Instruction, RankReport, Topology
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import Delays, TransferEdge

__all__ = ["measure_delays"]

K = TypeVar("K")


def measure_delays(gang: Gang, topology: Topology) -> Delays:
    """Transfer delays, host gaps and tails from the timelines at default clocks, the mean of all pipelines."""
    each = [
        _pipeline_delays(gang.pipeline(data, tensor), topology.stages)
        for data in range(topology.data_parallel)
        for tensor in range(topology.tensor_parallel)
    ]
    return Delays(
        transfers_s=_mean([one.transfers_s for one in each]),
        overheads_s=_mean([one.overheads_s for one in each]),
        tails_s=_mean([one.tails_s for one in each]),
    )


class _Span(NamedTuple):
    """Begin and end of an instruction, on its rank's own clock or on the pipeline's common one."""

    begin_s: float
    end_s: float

    def later(self, shift_s: float) -> _Span:
        return _Span(self.begin_s + shift_s, self.end_s + shift_s)


def _pipeline_delays(ranks: Sequence[RankReport], stages: int) -> Delays:
    rank_of = {stage: rank.rank for rank in ranks for stage in rank.stages}
    spans = [_spans(rank) for rank in ranks]
    own = {one: span for of_rank in spans for one, span in of_rank.items()}
    offset_s, delay_s = _clocks_and_delays(_least_lags_s(own, rank_of), rank_of.get(0))
    seen = {one: span.later(offset_s.get(rank_of.get(one.stage, -1), 0.0)) for one, span in own.items()}
    lag_s = {
        stage: delay_s[pair]
        for stage in range(stages - 1)
        if (pair := _pair(rank_of.get(stage, -1), rank_of.get(stage + 1, -1))) in delay_s
    }
    overheads = _overheads_s(spans, seen, lag_s)
    waited = _waited_lags_s(spans, seen, overheads)
    transfers: dict[TransferEdge, float] = {}
    for stage, lag in lag_s.items():
        onward, back = (max(0.0, median(waited.get(way, [lag]))) for way in ((stage, stage + 1), (stage + 1, stage)))
        transfers[stage, stage + 1, "F"] = onward
        # A stage may run some of its backwards whole and some in halves: whatever it runs sends its gradient on.
        transfers |= {(stage + 1, stage, kind): back for kind in "BI" if (stage + 1, kind) in overheads}
    # A rank's tail is counted once, on its last stage, however many stages it runs.
    tails = {
        max(rank.stages): rank.tail_s + _head_s(of_rank, overheads) for rank, of_rank in zip(ranks, spans, strict=True)
    }
    return Delays(transfers, overheads, tails)


def _spans(rank: RankReport) -> dict[Instruction, _Span]:
    return {Instruction.parse(one.instruction, one.stage): _Span(one.begin_s, one.end_s) for one in rank.timeline}


def _head_s(spans: Mapping[Instruction, _Span], overheads_s: Mapping[tuple[int, str], float]) -> float:
    """Seconds from the begin of an iteration to its first instruction, on the first stage: on others it is a wait."""
    if not spans or all(one.stage for one in spans):
        return 0.0
    first, span = min(spans.items(), key=lambda item: item[1].begin_s)
    return max(0.0, span.begin_s - overheads_s.get((first.stage, first.kind), 0.0))


def _pair(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


def _least_lags_s(own: Mapping[Instruction, _Span], rank_of: Mapping[int, int]) -> dict[tuple[int, int], float]:
    """Least time from an instruction's end on one rank to its dependent's begin on another, each on its own clock."""
    least: dict[tuple[int, int], float] = {}
    for one, span in own.items():
        for source in _senders(one):
            if source in own and rank_of[source.stage] != rank_of[one.stage]:
                key = rank_of[source.stage], rank_of[one.stage]
                least[key] = min(least.get(key, inf), span.begin_s - own[source].end_s)
    return least


def _senders(one: Instruction) -> tuple[Instruction, ...]:
    """Whatever another stage may send to an instruction: activations, or the gradient of a backward, whole or half."""
    if one.kind == "F":
        return (Instruction(one.stage - 1, "F", one.microbatch),)
    return tuple(Instruction(one.stage + 1, kind, one.microbatch) for kind in "BI") if one.kind in "BI" else ()


def _clocks_and_delays(
    lags_s: Mapping[tuple[int, int], float], first: int | None
) -> tuple[dict[int, float], dict[tuple[int, int], float]]:
    """What to add to each rank's clock to come to that of the first, and the delay of each pair of ranks.

    Half the sum of a pair's least lags is its delay if in both directions somebody waited for nothing else, and more
    where the receiver always had other work: the ranks' clocks are joined by the pairs with the least. With the clocks
    known, the delay of the others is the lesser of the two lags.
    """
    both = {pair: (lag + lags_s[pair[::-1]]) / 2 for pair, lag in lags_s.items() if pair[::-1] in lags_s}
    offset_s = {} if first is None else {first: 0.0}
    while reach := [(mean, pair) for pair, mean in both.items() if pair[0] in offset_s and pair[1] not in offset_s]:
        mean, (known, new) = min(reach)
        offset_s[new] = offset_s[known] + mean - lags_s[known, new]
    delay_s: dict[tuple[int, int], float] = {}
    for (source, target), lag in lags_s.items():
        if source in offset_s and target in offset_s:
            pair = _pair(source, target)
            delay_s[pair] = min(delay_s.get(pair, inf), lag + offset_s[target] - offset_s[source])
    return offset_s, delay_s


def _overheads_s(
    spans: Sequence[Mapping[Instruction, _Span]], seen: Mapping[Instruction, _Span], lag_s: Mapping[int, float]
) -> dict[tuple[int, str], float]:
    """The host's gap before an instruction of each stage and kind: where all that it needs was there before.

    Of one that always waited: as much as of the stage's other kinds, or as the middle of all if that is more.
    """
    gaps: dict[tuple[int, str], list[float]] = {}
    for of_rank in spans:
        for before, one in pairwise(sorted(of_rank, key=lambda one: seen[one].begin_s)):
            sources = [source for source in _senders(one) if source in seen]
            arrivals = [seen[source].end_s + lag_s.get(min(source.stage, one.stage), 0.0) for source in sources]
            if all(arrival <= seen[before].end_s for arrival in arrivals):
                gap_s = max(0.0, seen[one].begin_s - seen[before].end_s)
                gaps.setdefault((one.stage, one.kind), []).append(gap_s)
    found = {key: median(values) for key, values in gaps.items()}
    middle = median(found.values()) if found else 0.0
    of_stage: dict[int, float] = {}
    for (stage, _), gap_s in found.items():
        of_stage[stage] = max(gap_s, of_stage.get(stage, 0.0))
    return {
        (one.stage, one.kind): found.get((one.stage, one.kind), max(middle, of_stage.get(one.stage, 0.0)))
        for one in seen
    }


def _waited_lags_s(
    spans: Sequence[Mapping[Instruction, _Span]],
    seen: Mapping[Instruction, _Span],
    overheads_s: Mapping[tuple[int, str], float],
) -> dict[tuple[int, int], list[float]]:
    """From an instruction's end to its dependent's begin on another rank, where that was waiting: by both stages."""
    found: dict[tuple[int, int], list[float]] = {}
    for of_rank in spans:
        for before, one in pairwise(sorted(of_rank, key=lambda one: seen[one].begin_s)):
            ready_s = seen[before].end_s + overheads_s[one.stage, one.kind]
            for source in _senders(one):
                if source in seen and source not in of_rank and seen[source].end_s >= ready_s:
                    found.setdefault((source.stage, one.stage), []).append(seen[one].begin_s - seen[source].end_s)
    return found


def _mean(maps: Sequence[Mapping[K, float]]) -> dict[K, float]:
    keys = {key for one in maps for key in one}
    return {key: fmean(one[key] for one in maps if key in one) for key in keys}
