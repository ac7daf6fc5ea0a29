"""The shape of a simulated job: which rank stands where, on which node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from joulepath_crds import Coordinates

__all__ = ["GPUS_PER_NODE", "Job"]

GPUS_PER_NODE: Final = 8


@dataclass(frozen=True, slots=True)
class Job:
    """Eight ranks a node, the tensor-parallel peers of a stage side by side; `nodes` are those that it has."""

    namespace: str
    name: str
    uid: str
    nodes: tuple[str, ...]
    pods: tuple[str, ...]
    """UIDs of its pods, one on each of the nodes."""
    stages: int = 8
    microbatches: int = 12
    tensor_parallel: int = 8

    @property
    def world_size(self) -> int:
        return GPUS_PER_NODE * len(self.nodes)

    @property
    def data_parallel(self) -> int:
        """Replicas of the pipeline."""
        return self.world_size // (self.stages * self.tensor_parallel)

    def pod(self, node: str) -> str:
        """UID of that of a node."""
        return self.pods[self.nodes.index(node)]

    def ranks(self, node: str) -> Iterator[tuple[int, Coordinates]]:
        """Those of a node, and where each stands."""
        first = GPUS_PER_NODE * self.nodes.index(node)
        for rank in range(first, first + GPUS_PER_NODE):
            place, tensor = divmod(rank, self.tensor_parallel)
            data, stage = divmod(place, self.stages)
            yield rank, Coordinates(data=data, pipeline=stage, tensor=tensor)
