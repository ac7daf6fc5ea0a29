"""What an EnergyPlan asks for that its schema lets through, but that can't be had."""

from __future__ import annotations

from joulepath_crds import MOST_BLOCKS, EnergyPlanSpec
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.jobs.kinds import JOB_KINDS, is_supported

__all__ = ["objection"]


def objection(spec: EnergyPlanSpec) -> tuple[Refusal, str] | None:
    """A reason and a sentence that names field, value and remedy; None where all can be had."""
    if not is_supported(spec.job):
        kinds = ", ".join(f"{kind.resource.kind} of {kind.resource.api_version}" for kind in JOB_KINDS)
        return (
            Refusal.UNSUPPORTED_KIND,
            f"spec.job is a {spec.job.kind} of {spec.job.api_version}; supported are {kinds}. "
            "Set spec.job.apiVersion and spec.job.kind to one of these.",
        )
    if spec.measurement.pairs * 2 > MOST_BLOCKS:
        return (
            Refusal.INVALID_SPEC,
            f"spec.measurement.pairs is {spec.measurement.pairs}; nodes keep {MOST_BLOCKS} blocks, two of each pair. "
            f"Set it to {MOST_BLOCKS // 2} or less.",
        )
    return None
