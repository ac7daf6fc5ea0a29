"""The schedules that the field uses, as pure functions of their shape.

Those that `torch.distributed.pipelining` has are generated as torch executes them (tests compare them with recordings
of real runs); its attribute `pipeline_order` is not always that. `stages` counts the stages of the whole model. With
several chunks a rank owns several stages: in a *loop* of R ranks, stage s is on rank s mod R; in a *V* of two chunks,
rank r owns stages r and 2R - 1 - r, so that the last stage is on the first rank.

Sources: GPipe (arXiv:1811.06965); 1F1B and interleaved 1F1B (arXiv:2104.04473); zero bubble and ZBV (arXiv:2401.10241,
2405.15362); DualPipeV (github.com/deepseek-ai/DualPipe); early recomputation (Merak, arXiv:2206.04959).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

from joulepath_planner.arguments import checked, fits, quoted
from joulepath_planner.errors import ScheduleError
from joulepath_planner.inputs.instruction import MOST_STAGES, Instruction
from joulepath_planner.inputs.schedule import Schedule

__all__ = [
    "SCHEDULES",
    "dualpipev",
    "early_recomputation_1f1b",
    "gpipe",
    "interleaved_1f1b",
    "interleaved_zb",
    "one_f_one_b",
    "schedule_by_name",
    "zb_h1",
    "zbv",
]


def gpipe(stages: int, microbatches: int) -> Schedule:
    """All forwards, then all backwards, both in the order of the microbatches; torch's `ScheduleGPipe`."""
    _check_shape("gpipe", stages, microbatches)
    return _built(
        "gpipe",
        ([Instruction(stage, kind, m) for kind in "FB" for m in range(microbatches)] for stage in range(stages)),
    )


def one_f_one_b(stages: int, microbatches: int) -> Schedule:
    """1F1B, torch's `Schedule1F1B`: forward and backward in turn, with one forward ahead for each stage that follows.

    The last stage runs F0 B0 F1 B1; with one stage this is a training without a pipeline.
    """
    _check_shape("1f1b", stages, microbatches)
    return _built("1f1b", (_interleaved(stage, stages, 1, microbatches, lead=1) for stage in range(stages)))


def early_recomputation_1f1b(stages: int, microbatches: int) -> Schedule:
    """1F1B with activation checkpoints, where recomputation (`C`) is an instruction of its own, right before its B.

    C takes no gradient: a rank that would wait for one recomputes meanwhile. (In Merak C and B are one in the steady
    state, and apart in the cool-down.) The last stage, whose gradient is there at once, has no C: what it recomputes is
    part of its B.
    """
    _check_shape("early-recomputation-1f1b", stages, microbatches)
    orders = list(one_f_one_b(stages, microbatches).orders)
    for stage in range(stages - 1):
        orders[stage] = tuple(
            part
            for one in orders[stage]
            for part in ((Instruction(stage, "C", one.microbatch), one) if one.kind == "B" else (one,))
        )
    return Schedule(tuple(orders), "early-recomputation-1f1b")


def interleaved_1f1b(stages: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Interleaved 1F1B on stages / chunks ranks in a loop; torch's `ScheduleInterleaved1F1B`."""
    ranks = _ranks("interleaved-1f1b", stages, microbatches, chunks)
    orders = (_interleaved(rank, ranks, chunks, microbatches, lead=2) for rank in range(ranks))
    return _built("interleaved-1f1b", orders)


def zb_h1(stages: int, microbatches: int) -> Schedule:
    """ZB-H1: 1F1B with input gradient (`I`) and weight gradient (`W`) apart, weight gradients filling what is left.

    As torch's `ScheduleInterleavedZeroBubble` with one stage a rank, hence as many forwards ahead as in 1F1B.
    """
    return Schedule(interleaved_zb(stages, microbatches, chunks=1).orders, "zb-h1")


def interleaved_zb(stages: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Interleaved zero bubble on stages / chunks ranks in a loop; torch's `ScheduleInterleavedZeroBubble`."""
    ranks = _ranks("interleaved-zb", stages, microbatches, chunks)
    orders = (_interleaved(rank, ranks, chunks, microbatches, lead=1, split=True) for rank in range(ranks))
    return _built("interleaved-zb", orders)


def zbv(stages: int, microbatches: int) -> Schedule:
    """Zero bubble in a V of two stages a rank; torch's `ScheduleZBVZeroBubble`."""
    ranks = _ranks("zbv", stages, microbatches, 2)
    return _built("zbv", (_zbv(rank, ranks, microbatches) for rank in range(ranks)))


def dualpipev(stages: int, microbatches: int) -> Schedule:
    """DualPipeV, a V of two stages a rank, with at least as many microbatches as stages; torch's `ScheduleDualPipeV`.

    Its pairs of an F and a B that may overlap run one after the other, F first, and send when both have ended: as torch
    runs them unless the user registers a function of their own for such pairs.
    """
    ranks = _ranks("dualpipev", stages, microbatches, 2)
    if microbatches < stages:
        raise ScheduleError(f"dualpipev needs at least as many microbatches as stages, {stages}, not {microbatches}.")
    built = [_dualpipev(rank, ranks, microbatches) for rank in range(ranks)]
    pairs = {forward: backward for one in built for forward, backward in one.pairs.items()}
    return Schedule(tuple(tuple(one.order) for one in built), "dualpipev", sent_after=pairs)


SCHEDULES: Final[dict[str, Callable[..., Schedule]]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved-1f1b": interleaved_1f1b,
    "early-recomputation-1f1b": early_recomputation_1f1b,
    "zb-h1": zb_h1,
    "interleaved-zb": interleaved_zb,
    "zbv": zbv,
    "dualpipev": dualpipev,
}
_MOST_OF_A_KIND: Final = 131_072
_ANY_CHUNKS: Final = ("interleaved-1f1b", "interleaved-zb")
_TWO_CHUNKS: Final = ("zbv", "dualpipev")


@checked
def schedule_by_name(name: str, stages: int, microbatches: int, chunks: int | None = None) -> Schedule:
    """The schedule of that name. chunks: stages of a rank, a choice of the interleaved ones only (default 2).

    Raises:
        ScheduleError: There is no such schedule, or none of this shape.
        ArgumentError: An argument is of another type.
    """
    if name not in SCHEDULES:
        raise ScheduleError(f"schedule {quoted(name)} is unknown; use one of {', '.join(SCHEDULES)}.")
    if name in _ANY_CHUNKS:
        return SCHEDULES[name](stages, microbatches, 2 if chunks is None else chunks)
    own = 2 if name in _TWO_CHUNKS else 1
    if chunks not in (None, own):
        raise ScheduleError(f"{name} has {own} stage{'s' * (own > 1)} a rank, not {chunks}; leave chunks out.")
    return SCHEDULES[name](stages, microbatches)


class _Rank:
    """The order of one rank as it grows: each kind of each stage takes its microbatches one after the other."""

    def __init__(self) -> None:
        self.order: list[Instruction] = []
        self.pairs: dict[Instruction, Instruction] = {}
        self._count: Counter[tuple[int, str]] = Counter()
        self._due: deque[int] = deque()

    def run(self, *steps: tuple[str, int]) -> None:
        for kind, stage in steps:
            counted = "IW" if kind == "B" else kind
            self.order.append(Instruction(stage, kind, self._count[stage, counted[0]]))
            for one in counted:
                self._count[stage, one] += 1
            if kind == "I":
                self._due.append(stage)

    def run_pair(self, forward: int, backward: int) -> None:
        self.run(("F", forward), ("B", backward))
        self.pairs[self.order[-2]] = self.order[-1]

    def run_due(self) -> bool:
        """The weight gradient that has been due for longest; False if there is none."""
        if self._due:
            self.run(("W", self._due.popleft()))
            return True
        return False


def _interleaved(
    rank: int, ranks: int, chunks: int, microbatches: int, lead: int, split: bool = False
) -> list[Instruction]:
    """Microbatches go through a rank's chunks in rounds. lead: forwards ahead for each rank that follows."""
    size = microbatches // max(1, microbatches // ranks)
    total = chunks * microbatches
    ahead = min(total, (chunks - 1) * size + lead * (ranks - 1 - rank))
    own = _Rank()
    for step in range(ahead + total):
        if step < total:
            own.run(("F", rank + ranks * (step // size % chunks)))
        if step >= ahead:
            own.run(("I" if split else "B", rank + ranks * (chunks - 1 - (step - ahead) // size % chunks)))
            if step - ahead >= rank:
                own.run_due()
    while own.run_due():
        pass
    return own.order


def _zbv(rank: int, ranks: int, microbatches: int) -> list[Instruction]:
    down, up, left = rank, 2 * ranks - 1 - rank, ranks - rank
    # Built for enough microbatches to fill the pipeline; those that there are not are left out at the end.
    built = max(2 * ranks - 1, microbatches)
    own = _Rank()
    own.run(*[("F", down)] * (2 * left - 1))
    own.run(*[("F", up), ("F", down)] * rank)
    own.run(*[("F", up), ("I", up), ("W", up)] * left)
    # So far `up` forwards down and `ranks` forwards up.
    for turn in range(built - ranks):
        own.run(*[("F", down)] * (turn < built - up))
        own.run(("I", down), ("W", down), ("F", up), ("I", up), ("W", up))
    own.run(*[("I", down), ("I", up)] * rank)
    own.run(*[("I", down), ("W", down)] * left)
    own.run(*[("W", up)] * rank, *[("W", down)] * rank)
    return [one for one in own.order if one.microbatch < microbatches]


def _dualpipev(rank: int, ranks: int, microbatches: int) -> _Rank:
    down, up, left = rank, 2 * ranks - 1 - rank, ranks - 1 - rank
    own = _Rank()
    own.run(*[("F", down)] * (2 * left))
    own.run(*[("F", down), ("F", up)] * (rank + 1))
    for _ in range(left):
        own.run(("I", up))
        own.run_due()
        own.run(("F", up))
    for turn in range(microbatches - 2 * ranks + rank + 1):
        if turn or left:
            own.run_pair(down, up)
        else:
            own.run(("F", down), ("B", up))
        own.run_pair(up, down)
    for _ in range(left):
        own.run(("B", up))
        own.run_pair(up, down)
    ending = [up, down] * (rank + 1)
    own.run(*[("B", stage) for stage in ending[: rank + 1]], *[("I", stage) for stage in ending[rank + 1 :]])
    for _ in range(left):
        own.run_due()
        own.run(("I", down))
    while own.run_due():
        pass
    return own


def _built(name: str, orders: Iterable[list[Instruction]]) -> Schedule:
    return Schedule(tuple(map(tuple, orders)), name)


def _check_shape(name: str, stages: int, microbatches: int, chunks: int = 1) -> None:
    for what, value in (("stages", stages), ("microbatches", microbatches), ("chunks", chunks)):
        if not fits(value, int):
            raise ScheduleError(f"{name}: {what} is {quoted(value)}; it must be a whole number.")
        if value < 1:
            raise ScheduleError(f"{name}: {what} is {value}; a pipeline needs at least 1.")
    if stages > MOST_STAGES:
        raise ScheduleError(f"{name}: stages is {stages}; up to {MOST_STAGES} can be planned. Take fewer.")
    if stages * microbatches > _MOST_OF_A_KIND:
        raise ScheduleError(
            f"{name}: {stages} stages with {microbatches} microbatches are too many; up to {_MOST_OF_A_KIND} "
            "instructions of a kind can be planned. Take fewer microbatches."
        )


def _ranks(name: str, stages: int, microbatches: int, chunks: int) -> int:
    """How many ranks there are; refuses what cannot be shared out evenly, as torch does."""
    _check_shape(name, stages, microbatches, chunks)
    if stages % chunks:
        raise ScheduleError(f"{name}: {stages} stages cannot be shared out by {chunks} a rank; take a multiple.")
    ranks = stages // chunks
    rounds = max(1, microbatches // ranks)
    if chunks > 1 and name.startswith("interleaved") and microbatches % rounds:
        raise ScheduleError(
            f"{name}: {microbatches} microbatches do not make {rounds} equal rounds; take a multiple of {ranks}."
        )
    return ranks
