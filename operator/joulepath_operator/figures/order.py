"""What a rank runs in an iteration, each instruction with its stage: `3:F0`.

A rank with one stage reports `F0`. Where it runs several (interleaved, zero-bubble V, DualPipeV) that would be two
instructions, so that the stage has to be told: by the label itself, or by the timeline, which names it beside.
"""

from __future__ import annotations

from joulepath_crds import RankReport


def executed(rank: RankReport) -> tuple[str, ...]:
    """The instructions of a rank in order, as `3:F0`; empty while their stages are unknown."""
    if len(rank.stages) == 1:
        return tuple(label if ":" in label else f"{rank.stages[0]}:{label}" for label in rank.order)
    if all(":" in label for label in rank.order):
        return rank.order
    if len(rank.timeline) != len(rank.order):
        return ()
    return tuple(f"{one.stage}:{bare(one.instruction)}" for one in sorted(rank.timeline, key=lambda one: one.begin_s))


def bare(label: str) -> str:
    """F0 of `F0` and of `3:F0`."""
    return label.rpartition(":")[2]


def kind_of(label: str) -> str:
    """F of `F0` and of `3:F0`."""
    return bare(label)[:1]


def stage_of(label: str) -> int:
    """3 of `3:F0`."""
    return int(label.partition(":")[0])
