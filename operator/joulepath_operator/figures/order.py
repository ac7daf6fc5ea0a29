"""What a rank runs in an iteration, each instruction with its stage.

A rank with one stage may report `F0`. Where it runs several (interleaved, zero-bubble V, DualPipeV) that would be two
instructions, so that the stage has to be told: by the label itself, `3:F0`, or by the timeline, which names it beside.
"""

from __future__ import annotations

from joulepath_crds import Instruction, RankReport

__all__ = ["check_labels", "executed"]


def executed(rank: RankReport) -> tuple[Instruction, ...]:
    """The instructions of a rank in order; empty while their stages are unknown."""
    if len(rank.stages) == 1:
        return tuple(Instruction.parse(label, rank.stages[0]) for label in rank.order)
    if all(":" in label for label in rank.order):
        return tuple(Instruction.parse(label) for label in rank.order)
    if len(rank.timeline) != len(rank.order):
        return ()
    ordered = sorted(rank.timeline, key=lambda one: one.begin_s)
    return tuple(Instruction.parse(one.instruction, one.stage) for one in ordered)


def check_labels(rank: RankReport) -> None:
    """Whether all labels can be read: no schema says what a label is.

    Raises:
        ValueError: One is none; the message names it.
    """
    alone = rank.stages[0] if len(rank.stages) == 1 else None
    for label in rank.order:
        Instruction.parse(label, 0 if alone is None and ":" not in label else alone)
    for one in (*rank.timeline, *rank.plan_timeline):
        Instruction.parse(one.instruction, one.stage)
