"""Where a rank stands among (data-parallel, pipeline, tensor) coordinates, as far as one process can tell.

A rank knows the ranks of its own pipeline, and by the names that a torch DeviceMesh gives its process groups
("mesh_tp") those of its tensor-parallel group. It does not know the other pipelines. They are **guessed** to be laid
out alike: as in every regular mesh, ranks of a pipeline are equally spaced, `r0, r0 + s, r0 + 2s, ...`. Pipelines are
then numbered by their first rank, and among those of one tensor-parallel coordinate that number is the data-parallel
index. Where the ranks are not equally spaced, the index is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Placement", "place"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Index and number of pipeline replicas, index and number of tensor-parallel peers."""

    data: int
    tensor: int
    data_parallel: int
    tensor_parallel: int


def place(rank: int, world_size: int, pipeline: Sequence[int], tensor_group: Sequence[int] = ()) -> Placement:
    """Places a rank.

    Args:
        rank: Global rank.
        world_size: Number of ranks of the job.
        pipeline: Global ranks of the rank's pipeline, in the pipeline's order.
        tensor_group: Global ranks of its tensor-parallel group; empty where there is none or it is not known.
    """
    tensors = sorted(tensor_group) if rank in tensor_group else [rank]
    tensor, tensor_count = tensors.index(rank), len(tensors)
    data_count = max(1, world_size // (len(pipeline) * tensor_count))
    members = sorted(pipeline)
    pipeline_stride = _stride(members)
    tensor_stride = _stride(tensors)
    if pipeline_stride is None or tensor_stride is None:
        return Placement(0, tensor, data_count, tensor_count)
    number = _without(members[0], pipeline_stride, len(members))
    if tensor_stride > pipeline_stride:
        tensor_stride //= len(members)
    return Placement(_without(number, max(1, tensor_stride), tensor_count), tensor, data_count, tensor_count)


def _stride(ranks: Sequence[int]) -> int | None:
    """The distance of equally spaced ranks; None if they aren't."""
    distances = {after - before for before, after in pairwise(ranks)}
    return 1 if not distances else distances.pop() if len(distances) == 1 else None


def _without(index: int, stride: int, size: int) -> int:
    """The index in a row-major grid after the dimension of this stride and size is taken out."""
    return index // (stride * size) * stride + index % stride
