"""The delays that no clock changes: between two ranks, between two instructions of a rank, and after the last.

They come from the timelines at default clocks. Once these are on one clock, and it is known when messages leave and are
awaited, an instruction whose rank was waiting for another shows what that way takes as a rule, and one that waited for
nothing but its predecessor the host's own gap between two instructions. At default clocks some kinds always wait (a
backward of the first stages, for its gradient), which under a plan, that uses up waits, don't: their gap is taken to be
that of others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, TypeVar

from joulepath_crds import Instruction, Topology, learnt_from
from joulepath_operator.facts.exchanges import Exchanges
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.iteration import RankIteration
from joulepath_operator.facts.request import Delays, TransferEdge
from joulepath_operator.figures.timing.learning import Pipeline, learnt_exchanges
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
    seconds for tens of thousands of instructions."""
    exchanges, odd = learnt_exchanges(pipelines)
    each = [_pipeline_delays(one, stages, exchanges) for one in pipelines]
    return Delays(
        transfers_s=_middle([one.transfers_s for one in each]),
        overheads_s=_middle([one.overheads_s for one in each]),
        tails_s=_middle([one.tails_s for one in each]),
        exchanges=exchanges,
        odd=odd,
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
    waited = _waited_lags_s(timelines.orders, seen, overheads)
    transfers: dict[TransferEdge, float] = {}
    made = {(half.stage, half.kind) for one in seen.spans for half in one.halves}
    for stage, lag in lag_s.items():
        onward, back = (max(0.0, median(waited.get(way, [lag]))) for way in ((stage, stage + 1), (stage + 1, stage)))
        transfers[stage, stage + 1, "F"] = onward
        # A stage may run some of its backwards whole and some in halves: whatever it runs sends its gradient on.
        transfers |= {(stage + 1, stage, kind): back for kind in "BI" if (stage + 1, kind) in made}
    # A rank's tail is counted once, on its last stage, however many stages it runs.
    tails = {
        max(rank.stages): rank.tail_s + _head_s(of_rank, overheads)
        for rank, of_rank in zip(ranks, timelines.of_rank, strict=True)
    }
    return Delays(transfers, overheads, tails)


def _head_s(spans: Mapping[Instruction, Span], overheads_s: Mapping[tuple[int, str], float]) -> float:
    """Seconds from the begin of an iteration to its first instruction, on the first stage: on others it is a wait."""
    if not spans or all(one.stage for one in spans):
        return 0.0
    first, span = min(spans.items(), key=lambda item: item[1].begin_s)
    return max(0.0, span.begin_s - overheads_s.get((first.stage, first.kind), 0.0))


def _overheads_s(
    orders: Sequence[Sequence[Instruction]], seen: Iteration, lag_s: Mapping[int, float]
) -> dict[tuple[int, str], float]:
    """The host's gap before an instruction of each stage and kind: where all that is awaited was there before.

    Of one that always waited: as much as of the stage's other kinds, or as the middle of all if that is more.
    """
    gaps: dict[tuple[int, str], list[float]] = {}
    for order in orders:
        for before, one in pairwise(order):
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


def _waited_lags_s(
    orders: Sequence[Sequence[Instruction]], seen: Iteration, overheads_s: Mapping[tuple[int, str], float]
) -> dict[tuple[int, int], list[float]]:
    """From the end to the begin that a message joins, where the rank was waiting for it alone: by both stages."""
    found: dict[tuple[int, int], list[float]] = {}
    for order in orders:
        for before, one in pairwise(order):
            ready_s = seen.spans[before].end_s + overheads_s[one.stage, one.kind]
            ready_s = max([ready_s, *(seen.spans[busy].end_s for busy in seen.held.get(one, ()))])
            messages = seen.awaited.get(one, ())
            last = max(messages, key=lambda message: seen.spans[message.sent_after].end_s, default=None)
            if last is not None and seen.spans[last.sent_after].end_s >= ready_s:
                lag_s = seen.spans[one].begin_s - seen.spans[last.sent_after].end_s
                found.setdefault(last.way, []).append(lag_s)
    return found


def _middle(maps: Sequence[Mapping[K, float]]) -> dict[K, float]:
    keys = {key for one in maps for key in one}
    return {key: median(one[key] for one in maps if key in one) for key in keys}
