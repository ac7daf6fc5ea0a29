"""What a rank runs in an iteration, each instruction with its stage.

A rank with one stage may report `F0`. Where it runs several (interleaved, zero-bubble V, DualPipeV) that would be two
instructions, so that the stage has to be told: by the label itself, `3:F0`, or by the timeline, which names it beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from joulepath_crds import Instruction, RankMeasurements, RankReport

__all__ = ["check_labels", "counted", "executed", "is_told", "labels"]


def executed(rank: RankReport) -> tuple[Instruction, ...]:
    """The instructions of a rank in order; empty while their stages are unknown."""
    if _names_stages(rank):
        alone = rank.stages[0] if len(rank.stages) == 1 else None
        return tuple(Instruction.parse(label, alone) for label in rank.order)
    if len(rank.timeline) != len(rank.order):
        return ()
    ordered = sorted(rank.timeline, key=lambda one: one.begin_s)
    return tuple(Instruction.parse(one.instruction, one.stage) for one in ordered)


def is_told(rank: RankReport) -> bool:
    """Whether it is known what the rank runs and when."""
    return bool(rank.order and rank.timeline) and (len(rank.timeline) == len(rank.order) or _names_stages(rank))


def labels(rank: RankReport) -> tuple[str, ...]:
    """The same as `executed`, each as it was told: with its stage where the rank runs several. Reads nothing, so that
    it takes little time."""
    if _names_stages(rank):
        return rank.order
    ordered = sorted(rank.timeline, key=lambda one: one.begin_s)
    return tuple(f"{one.stage}:{one.instruction.rpartition(':')[2]}" for one in ordered)


def counted(ranks: Iterable[RankReport]) -> list[Counter[tuple[int, str]]]:
    """How often each rank runs each (stage, kind). Those that share an order, as the index has them share what is the
    same, are counted once: a large job has thousands of ranks, and a few orders."""
    known: dict[tuple[int, tuple[int, ...]], Counter[tuple[int, str]]] = {}
    found = []
    for rank in ranks:
        alike = id(rank.order), rank.stages
        by_itself = len(rank.stages) == 1 or ":" in "".join(rank.order[:1])
        if not by_itself or alike not in known:
            known[alike] = Counter((one.stage, one.kind) for one in executed(rank))
        found.append(known[alike])
    return found


def _names_stages(rank: RankReport) -> bool:
    return len(rank.stages) == 1 or all(":" in label for label in rank.order)


def check_labels(rank: RankReport | RankMeasurements) -> None:
    """Whether all labels can be read: no schema says what a label is.

    Raises:
        ValueError: One is none; the message names it.
    """
    alone = rank.stages[0] if len(rank.stages) == 1 else None
    for label in rank.order:
        Instruction.parse(label, 0 if alone is None and ":" not in label else alone)
    for one in (*rank.timeline, *rank.plan_timeline):
        Instruction.parse(one.instruction, one.stage)
