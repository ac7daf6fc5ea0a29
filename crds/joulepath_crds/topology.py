"""The shape of a job: what must be equal for one run's profile to serve another."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from joulepath_crds.contract import Contract, Name

__all__ = ["Coordinates", "Topology"]


class Coordinates(Contract):
    """Where a rank stands in the job. A job without a pipeline is a pipeline of one stage."""

    data: Annotated[int, Field(ge=0)] = 0
    """Index of the data-parallel replica."""
    pipeline: Annotated[int, Field(ge=0)] = 0
    """Index in the pipeline."""
    tensor: Annotated[int, Field(ge=0)] = 0
    """Index among the tensor-parallel peers of a stage."""


class Topology(Contract):
    """The pipeline of a job."""

    schedule: Annotated[str, Field(max_length=64)]
    """Name of the schedule: 1F1B, GPipe, or Recorded. Of a job without a pipeline NoPipeline; VaryingBackwards, where
    not each iteration has as many of them; IterationsOnly, where none is seen."""
    stages: Annotated[int, Field(ge=1, le=1024)]
    """Stages of the pipeline; 1 if the job has no pipeline."""
    microbatches: Annotated[int, Field(ge=1, le=65536)]
    """Microbatches of an iteration."""
    data_parallel: Annotated[int, Field(ge=1)] = 1
    """Data-parallel replicas of the pipeline."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Tensor-parallel ranks of each stage."""
    gpu_model: Name
    """Name of the GPUs, as NVML tells it."""
    default_clock_mhz: Annotated[int, Field(gt=0)]
    """The highest SM clock, in MHz, that the GPUs may run at without a lock. Where they settle is in the profile."""
