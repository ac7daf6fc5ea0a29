"""The delays that no clock changes: between two ranks, between two instructions of a rank and in one, after the last.

They come from the timelines at default clocks. Once these are on one clock, and it is known when messages leave and are
awaited, an instruction whose rank was waiting for another shows what that way takes as a rule, and one that waited for
nothing but its predecessor the host's own gap between two instructions. At default clocks some kinds always wait (a
backward of the first stages, for its gradient), which under a plan, that uses up waits, don't: their gap is taken to be
that of others. A single instruction that is far from its kind has a gap, or seconds within it, of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, pairwise
from statistics import median
from types import MappingProxyType
from typing import Final, TypeVar

from joulepath_crds import Instruction, Topology, learnt_from
from joulepath_operator.facts.exchanges import Exchanges
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.iteration import RankIteration
from joulepath_operator.facts.request import Delays, TransferEdge
from joulepath_operator.figures.timing.learning import Pipeline, learnt_exchanges
from joulepath_operator.figures.timing.single import Kind, extras_s, own_gaps_s
from joulepath_operator.figures.timing.timelines import Iteration, Span, Timelines

__all__ = ["delays_of", "measure_delays", "some_pipelines"]

_ENOUGH_INSTRUCTIONS: Final = 4096
"""Of a rank: warm-up and much of the steady state, which is as many as ranks of a thousand microbatches have."""

K = TypeVar("K")


def some_pipelines(
    gang: Gang, topology: Topology, replicas: Collection[int] | None = None
) -> tuple[tuple[RankIteration, ...], ...]:
    """What delays are learnt from: a few pipelines from all over the job, the first one first; or those among them that
    are of these replicas, perhaps none."""
    return tuple(
        tuple(RankIteration.of(rank, _ENOUGH_INSTRUCTIONS) for rank in gang.pipeline(*place))
        for place in learnt_from(topology.data_parallel, topology.tensor_parallel)
        if replicas is None or place[0] in replicas
    )


def delays_of(pipelines: Sequence[Pipeline], stages: int) -> Delays:
    """Transfer delays, host gaps and tails from the timelines at default clocks, the middle of these pipelines. Takes
    seconds for tens of thousands of instructions. What is of single instructions counts if most pipelines have it."""
    exchanges, odd = learnt_exchanges(pipelines)
    each = [_pipeline_delays(one, stages, exchanges) for one in pipelines]
    extras = _middle([one.extras_s for one in each], len(each) // 2 + 1)
    return Delays(
        transfers_s=_middle([one.transfers_s for one in each]),
        overheads_s=_middle([one.overheads_s for one in each]),
        tails_s=_middle([one.tails_s for one in each]),
        exchanges=exchanges,
        odd=odd,
        gaps_s=_middle([one.gaps_s for one in each], len(each) // 2 + 1),
        extras_s=extras,
        fixed_s=_means_s(max(pipelines, key=_told, default=()), extras),
    )


def measure_delays(gang: Gang, topology: Topology) -> Delays:
    """The same of a gang, here and now."""
    return delays_of(some_pipelines(gang, topology), topology.stages)


def _pipeline_delays(ranks: Pipeline, stages: int, exchanges: Exchanges) -> Delays:
    timelines = Timelines(ranks)
    seen = timelines.joined(exchanges)
    lag_s = {
        stage: seen.lag_s[pair]
        for stage in range(stages - 1)
        if (pair := timelines.pair(stage, stage + 1)) in seen.lag_s
    }
    overheads = _overheads_s(timelines.orders, seen, lag_s)
    ways = _ways_s(timelines.orders, seen, lag_s, overheads)
    if own := own_gaps_s(timelines.orders, seen, overheads, ways):
        overheads = _overheads_s(timelines.orders, seen, lag_s, own)
        ways = _ways_s(timelines.orders, seen, lag_s, overheads, own)
    transfers: dict[TransferEdge, float] = {}
    made = {(half.stage, half.kind) for one in seen.spans for half in one.halves}
    for stage in lag_s:
        back = ways[stage + 1, stage]
        transfers[stage, stage + 1, "F"] = ways[stage, stage + 1]
        # A stage may run some of its backwards whole and some in halves: whatever it runs sends its gradient on.
        transfers |= {(stage + 1, stage, kind): back for kind in "BI" if (stage + 1, kind) in made}
    # A rank's tail is counted once, on its last stage, however many stages it runs.
    tails = {
        max(rank.stages): rank.tail_s + _head_s(of_rank, overheads)
        for rank, of_rank in zip(ranks, timelines.of_rank, strict=True)
    }
    return Delays(
        transfers,
        overheads,
        tails,
        gaps_s={one.label: seconds for one, seconds in own.items()},
        extras_s={one.label: seconds for one, seconds in extras_s(seen).items()},
    )


def _told(ranks: Pipeline) -> int:
    return sum(len(rank.instructions) for rank in ranks)


def _means_s(ranks: Pipeline, extras: Mapping[str, float]) -> dict[Kind, float]:
    """Those that are extra, on average of their kind, as its measured seconds have them."""
    if not extras:
        return {}
    ran = [
        Instruction.parse(label, stage)
        for rank in ranks
        for label, stage in zip(rank.instructions, rank.stage_of, strict=True)
    ]
    count, sums = Counter((one.stage, one.kind) for one in ran), defaultdict[Kind, float](float)
    for one in ran:
        sums[one.stage, one.kind] += extras.get(one.label, 0.0)
    return {kind: seconds / count[kind] for kind, seconds in sums.items() if seconds}


def _head_s(spans: Mapping[Instruction, Span], overheads_s: Mapping[Kind, float]) -> float:
    """Seconds from the begin of an iteration to its first instruction, on the first stage: on others it is a wait."""
    if not spans or all(one.stage for one in spans):
        return 0.0
    first, span = min(spans.items(), key=lambda item: item[1].begin_s)
    return max(0.0, span.begin_s - overheads_s.get((first.stage, first.kind), 0.0))


def _overheads_s(
    orders: Sequence[Sequence[Instruction]],
    seen: Iteration,
    lag_s: Mapping[int, float],
    own: Collection[Instruction] = (),
) -> dict[Kind, float]:
    """The host's gap before an instruction of each stage and kind: where all that is awaited was there before. own:
    instructions that have gaps of their own.

    Of one that always waited: as much as of the stage's other kinds, or as the middle of all if that is more.
    """
    gaps: dict[Kind, list[float]] = {}
    for order in orders:
        for before, one in pairwise(order):
            if one in own:
                continue
            arrivals = [
                seen.spans[message.sent_after].end_s + lag_s.get(min(message.way), 0.0)
                for message in seen.awaited.get(one, ())
            ] + [seen.spans[busy].end_s for busy in seen.held.get(one, ())]
            if all(arrival <= seen.spans[before].end_s for arrival in arrivals):
                gap_s = max(0.0, seen.spans[one].begin_s - seen.spans[before].end_s)
                gaps.setdefault((one.stage, one.kind), []).append(gap_s)
    found = {key: median(values) for key, values in gaps.items()}
    middle = median(found.values()) if found else 0.0
    of_stage: dict[int, float] = {}
    for (stage, _), gap_s in found.items():
        of_stage[stage] = max(gap_s, of_stage.get(stage, 0.0))
    return {
        (one.stage, one.kind): found.get((one.stage, one.kind), max(middle, of_stage.get(one.stage, 0.0)))
        for one in seen.spans
    }


def _ways_s(
    orders: Sequence[Sequence[Instruction]],
    seen: Iteration,
    lag_s: Mapping[int, float],
    overheads_s: Mapping[Kind, float],
    own_s: Mapping[Instruction, float] = MappingProxyType({}),
) -> dict[tuple[int, int], float]:
    """From the end to the begin that a message joins, by both stages: as a rule where the rank was waiting for it
    alone, else as the least between these ranks."""
    found: dict[tuple[int, int], list[float]] = {}
    for order in orders:
        for before, one in pairwise(order):
            ready_s = seen.spans[before].end_s + own_s.get(one, overheads_s[one.stage, one.kind])
            ready_s = max([ready_s, *(seen.spans[busy].end_s for busy in seen.held.get(one, ()))])
            messages = seen.awaited.get(one, ())
            last = max(messages, key=lambda message: seen.spans[message.sent_after].end_s, default=None)
            if last is not None and seen.spans[last.sent_after].end_s >= ready_s:
                lag = seen.spans[one].begin_s - seen.spans[last.sent_after].end_s
                found.setdefault(last.way, []).append(lag)
    return {
        way: max(0.0, median(found.get(way, [lag])))
        for stage, lag in lag_s.items()
        for way in ((stage, stage + 1), (stage + 1, stage))
    }


def _middle(maps: Sequence[Mapping[K, float]], least: int = 1) -> dict[K, float]:
    """Of what so many of the maps have."""
    each: dict[K, list[float]] = {}
    for key, value in chain(*(one.items() for one in maps)):
        each.setdefault(key, []).append(value)
    return {key: median(values) for key, values in each.items() if len(values) >= least}
