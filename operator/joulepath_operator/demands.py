"""What an EnergyPlan asks for that its schema lets through, but that can't be had."""

from __future__ import annotations

from joulepath_crds import EnergyPlanSpec

_BLOCKS_KEPT = 256
"""Blocks that a node's report keeps of each rank."""
_KIND = ("kubeflow.org/v1", "PyTorchJob")


def objection(spec: EnergyPlanSpec) -> tuple[str, str] | None:
    """A reason in CamelCase and a sentence that names field, value and remedy; None where all can be had."""
    if (spec.job.api_version, spec.job.kind) != _KIND:
        return (
            "UnsupportedKind",
            f"spec.job is a {spec.job.kind} of {spec.job.api_version}; the kind that is supported is PyTorchJob of "
            "kubeflow.org/v1. Set spec.job.apiVersion and spec.job.kind to these.",
        )
    if spec.measurement.pairs * 2 > _BLOCKS_KEPT:
        return (
            "InvalidSpec",
            f"spec.measurement.pairs is {spec.measurement.pairs}; nodes keep {_BLOCKS_KEPT} blocks, two of each pair. "
            f"Set it to {_BLOCKS_KEPT // 2} or less.",
        )
    return None
