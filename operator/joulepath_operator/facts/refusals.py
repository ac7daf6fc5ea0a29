"""Why a job gets no plan: every reason that the operator coins, who coins it, and whether it is final.

A final refusal holds until the job restarts or is suspended, or the EnergyPlan's spec changes (some are tried a few
times before they are final: `setbacks`); the others are looked at anew each time.
The status holds a reason's code only, so that an operator that was started a moment ago finds here what it means. What
an agent refuses is told in the agent's own word, and is final (`decide`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

__all__ = ["Refusal"]


class Refusal(StrEnum):
    """A reason, by the code that conditions show."""

    final: bool

    def __new__(cls, code: str, final: bool) -> Self:
        one = str.__new__(cls, code)
        one._value_, one.final = code, final
        return one

    # The EnergyPlan and its job: `objections`, `reconcile`, `decide`
    UNSUPPORTED_KIND = "UnsupportedKind", False
    INVALID_SPEC = "InvalidSpec", False
    ANNOTATION_MISMATCH = "AnnotationMismatch", False
    NOT_ALLOWED = "NotAllowed", False

    # What the ranks and their GPUs say of each other: `gang`
    UNKNOWN_GPU = "UnknownGPU", False
    GPU_REFUSED = "GPURefused", False
    SHARED_GPU = "SharedGPU", False
    MIXED_GPUS = "MixedGPUs", False
    RANKS_DISAGREE = "RanksDisagree", False

    # What is seen of the training: `decide`
    WORK_UNSEEN = "WorkUnseen", False

    # Profiling: `sweeping`
    TOO_FEW_CLOCKS = "TooFewClocks", True
    SWEEP_INCOMPLETE = "SweepIncomplete", True

    # Planning: `model`, `compute`, `pool`, `child`
    MODEL_MISMATCH = "ModelMismatch", True
    NOT_PLANNABLE = "NotPlannable", True
    PLANNER_TIMEOUT = "PlannerTimeout", True
    PLANNER_DIED = "PlannerDied", True
    PLANNER_MEMORY = "PlannerMemory", True

    # An agent that gives no word of its own: `decide`
    RANK_REFUSED = "RankRefused", True

    # Plans that all turned out slower than allowed: `withdrawal`
    SLOWER_THAN_ALLOWED = "SlowerThanAllowed", True

    # A plan that agents wouldn't read: `delivery`
    PLAN_TOO_LARGE = "PlanTooLarge", True

    # The API server: `reconcile`
    NOT_WRITABLE = "NotWritable", True

    @classmethod
    def coded(cls, code: str | None) -> Refusal | None:
        """The refusal that a condition's reason stands for; None where it is no refusal of ours."""
        return next((one for one in cls if one.value == code), None)
