"""Who this rank is and what it trains, read from torch and from the environment that torchrun sets.

Private names of torch are read with a default wherever one makes sense; where none does, the error switches the
observer off.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joulepath_trainer.marking.marks import Marker
from joulepath_trainer.placement import Placement, place
from joulepath_trainer.wire.messages import MOST_TEXT, Hello, PipelinePlace

__all__ = [
    "Work",
    "default_store",
    "group_ranks",
    "hello_of",
    "model_of",
    "pipeline_work",
    "rank_and_world",
    "single_stage_work",
]


@dataclass(frozen=True, slots=True)
class Work:
    """What a rank trains."""

    pipeline: PipelinePlace
    device: str
    """The torch device that computes: cpu, cuda:1, ..."""
    placement: Placement | None = None
    """Among the other ranks, where the framework tells it; else it is guessed."""
    model: weakref.ref[Any] | None = None
    """What is trained, to tell two of a kind apart; None where nothing says it."""


def pipeline_work(schedule: Any) -> Work:
    """What a schedule of `torch.distributed.pipelining` trains on this rank."""
    stages = getattr(schedule, "_stages", None) or [schedule._stage]
    first = stages[0]
    if len(devices := {str(stage.device) for stage in stages}) > 1:
        raise RuntimeError(f"the stages of a rank must be on one device, they are on {sorted(devices)}")
    return Work(
        PipelinePlace(
            schedule=type(schedule).__name__[:256],
            stage_count=int(first.num_stages),
            microbatches=int(schedule._n_microbatches),
            stages=tuple(int(stage.stage_index) for stage in stages),
            ranks=group_ranks(first.group),
        ),
        str(first.device),
        model=weakref.ref(model_of(schedule)),
    )


def model_of(schedule: Any) -> Any:
    """What a schedule of `torch.distributed.pipelining` trains, by the module of its first stage on this rank."""
    stages = getattr(schedule, "_stages", None) or [getattr(schedule, "_stage", schedule)]
    return getattr(stages[0], "submod", schedule)


def single_stage_work(device: str, schedule: str, microbatches: int) -> Work:
    """What a rank trains where there is no pipeline: one stage on one rank."""
    ranks = (rank_and_world()[0],)
    place = PipelinePlace(schedule=schedule, stage_count=1, microbatches=microbatches, stages=(0,), ranks=ranks)
    return Work(place, device)


def hello_of(
    work: Work,
    marker: Marker,
    attempt: int,
    environ: Mapping[str, str] = os.environ,
    *,
    framework: str = "",
    lacks: str = "",
) -> Hello:
    """What this rank says to the agent."""
    rank, world_size = rank_and_world()
    placement = work.placement or place(rank, world_size, work.pipeline.ranks, _tensor_group())
    return Hello(
        rank=rank,
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        world_size=world_size,
        attempt=attempt,
        gpu_uuid=marker.gpu_uuid,
        markers=marker.name,
        pipeline=work.pipeline,
        data=placement.data,
        tensor=placement.tensor,
        data_parallel=placement.data_parallel,
        tensor_parallel=placement.tensor_parallel,
        framework=framework[:MOST_TEXT],
        lacks=lacks[:MOST_TEXT],
    )


def _distributed() -> Any:
    """`torch.distributed` if the process has a default process group; None otherwise."""
    distributed = sys.modules.get("torch.distributed")
    ready = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if ready else None


def rank_and_world() -> tuple[int, int]:
    """Number of this rank, and of all ranks of the job."""
    distributed = _distributed()
    if distributed is not None:
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def default_store() -> Any:
    """The store by which the ranks of the default process group found each other; None where there is none."""
    distributed = _distributed()
    return None if distributed is None else distributed.distributed_c10d._get_default_store()


def group_ranks(group: Any) -> tuple[int, ...]:
    """The global ranks of a process group, in its order; None is the default one."""
    distributed = _distributed()
    if distributed is None:
        return (rank_and_world()[0],)
    return tuple(distributed.get_process_group_ranks(group if group is not None else distributed.group.WORLD))


def _tensor_group() -> tuple[int, ...]:
    """Ranks of the process group that a DeviceMesh made for its dimension "tp"; empty where there is none."""
    distributed = _distributed()
    groups = getattr(getattr(distributed, "distributed_c10d", None), "_pg_group_ranks", None) or {}
    for group, ranks in groups.items():
        if getattr(group, "group_desc", "") == "mesh_tp":
            return tuple(ranks)
    return ()
