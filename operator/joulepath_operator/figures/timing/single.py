"""Single instructions that are other than those of their kind, by where they stand in the order.

With FSDP the first forward gathers parameters, and the last backward reduces gradients: a gap before an instruction, or
seconds within it that no clock changes. A timeline is the median of many iterations, so what is far from the others of
its kind there is so each time. Far is more than eight times what all are off by in the middle, and more than a tenth of
what an instruction lasts in the middle: where messages come at about the time when a rank is free, the later of both,
which varies from iteration to iteration, is later in the middle than either is, and where kernels are slow now and
then, begins and ends in the middle are those of different iterations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from statistics import median, median_low
from typing import Final

from joulepath_crds import Instruction
from joulepath_operator.figures.timing.timelines import Iteration

__all__ = ["Kind", "extras_s", "own_gaps_s"]

_FAR: Final = 8.0
_LEAST: Final = 0.1
_WAITED: Final = 0.8
"""Of a gap: where its rank waited for a message for more, it may be the message that was slow."""

Kind = tuple[int, str]
"""A stage and a kind."""
Place = tuple[tuple[str, int], ...]
"""The kind and microbatch of an instruction, or of the one before it as well; of any stage."""


def extras_s(seen: Iteration) -> dict[Instruction, float]:
    """How much longer than the others of their kind those last that last far longer."""
    kinds: dict[Kind, list[float]] = defaultdict(list)
    for one in seen.spans:
        kinds[one.stage, one.kind].append(seen.length_s(one))
    usual_s = {kind: median_low(lengths) for kind, lengths in kinds.items()}
    # One of each kind is the usual one itself.
    off = [[abs(length - usual_s[kind]) for length in lengths] for kind, lengths in kinds.items()]
    far_s = _far_s(seen, chain(*(sorted(each)[1:] for each in off)))
    usual_s |= {
        kind: median(length for length in lengths if length - usual_s[kind] <= far_s)
        for kind, lengths in kinds.items()
        if max(lengths) - usual_s[kind] > far_s
    }
    longer = {one: seen.length_s(one) - usual_s[one.stage, one.kind] for one in seen.spans}
    return {one: seconds for one, seconds in longer.items() if seconds > far_s}


def own_gaps_s(
    orders: Sequence[Sequence[Instruction]],
    seen: Iteration,
    overheads_s: Mapping[Kind, float],
    transfers_s: Mapping[tuple[int, int], float],
) -> dict[Instruction, float]:
    """Gaps far from those of their kind, of instructions that begin far sooner or later than by these and messages.

    A gap that its rank waits through isn't seen, and a plan that uses up the wait would meet it. Where most of what is
    seen at the same place on other stages has such a gap, it is taken to have one, as far as it waits.

    transfers_s: by the stages that send and receive.
    """
    gap_s, off_s, usual_s = dict[Instruction, float](), dict[Instruction, float](), dict[Instruction, float]()
    places = dict[Instruction, tuple[Place, Place]]()
    for before, one in chain(*map(pairwise, orders)):
        free_s, ran = seen.spans[before].end_s, [(each.mark.kind, each.microbatch) for each in (before, one)]
        usual_s[one], gap_s[one] = overheads_s[one.stage, one.kind], max(0.0, seen.spans[one].begin_s - free_s)
        places[one] = tuple(ran[1:]), tuple(ran)
        arrivals = [
            seen.spans[message.sent_after].end_s + transfers_s.get(message.way, 0.0)
            for message in seen.awaited.get(one, ())
        ] + [seen.spans[busy].end_s for busy in seen.held.get(one, ())]
        waited_s = max([0.0, *(arrival - free_s for arrival in arrivals)])
        if waited_s <= (usual_s[one] if gap_s[one] < usual_s[one] else _WAITED * gap_s[one]):
            off_s[one] = gap_s[one] - max(usual_s[one], waited_s)
    far_s = _far_s(seen, map(abs, off_s.values()))
    at: dict[Place, list[float]] = defaultdict(list)
    for one, off in off_s.items():
        for place in places[one]:
            at[place].append(gap_s[one] if off > far_s else 0.0)
    hidden_s = {
        one: min(gap_s[one], max(median_low(at[place] or [0.0]) for place in places[one]))
        for one in gap_s
        if one not in off_s
    }
    found = {one: gap_s[one] for one, off in off_s.items() if abs(off) > far_s}
    return found | {one: seconds for one, seconds in hidden_s.items() if seconds > usual_s[one]}


def _far_s(seen: Iteration, off_s: Iterable[float]) -> float:
    middle_s = median([seen.length_s(one) for one in seen.spans] or [0.0])
    return max(_LEAST * middle_s, _FAR * median_low([*off_s] or [0.0]))
