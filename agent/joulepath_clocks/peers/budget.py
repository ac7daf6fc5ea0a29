"""What a peer may make the agent remember, compute and wait for: every such limit, with its reason.

A rank that exceeds it loses measurements or the connection, and no other rank does. The limits of bytes hold for one of
eight GPUs, as many as most nodes have; where there are more, each has its share of the same sum: 0.2 GB of the 0.5 GB
that the chart gives the agent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

__all__ = ["BUDGET", "Budget"]

_GPUS: Final = 8


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one agent."""

    # what one rank may tell

    stages: int = 1024
    """Stages that a rank runs and ranks of its pipeline: a NodeReport takes no more stages."""
    instructions: int = 4096
    """Of an iteration: 2,048 microbatches, forward and backward. Two timelines of so many are 700 KB of a NodeReport,
    and their markers are the message of that size that the clocks' channel takes."""
    regressors: int = 64
    """Kinds of instructions by stage in an iteration: four on each of 16 stages. The regression of power takes the
    square of their number, and a cell each for every window of the energy counter."""
    names: int = 1024
    """Kinds of instructions by stage and clock that have a measured time: 64 at each of 16 clocks. 4 MB."""
    record_bytes_per_s: float = 65536.0
    """Of iteration records: instructions of 0.4 ms. Reading one of 2,700 takes 5 ms."""
    record_burst_bytes: float = 262144.0
    """Records read at once: what a socket's queue holds, so that the agent may fall behind for a while."""
    least_record_bytes: int = 256
    """What a small record counts as: reading one costs something, too."""
    markers_per_s: float = 8000.0
    """Markers followed: instructions of 0.25 ms. Each takes 10 us of the thread that follows every rank."""
    iterations_per_s: float = 100.0
    """Iterations followed and told: each takes 80 us here and as much of the agent."""
    iterations_burst: float = 200.0
    markers_burst: float = 4096.0
    """Markers followed at once: the ring of a page."""
    restage_s: float = 1.0
    """Between two comparisons of a plan with another order of instructions: one takes milliseconds."""

    # what is kept of it

    marks: int = 16384
    """Markers of the iterations that aren't whole yet: two of the largest. 5 MB."""
    iterations: int = 4096
    """Of one run: longer blocks aren't measured whole."""
    pending_bytes: int = 4 * 2**20
    """Runs that wait for the energy counter, oldest dropped first: 250,000 instructions of one order."""
    window_cells: int = 2**19
    """Numbers kept of the windows of the energy counter, 8 bytes each: 400 runs of 80 windows of 16 numbers."""

    # what that may cost

    measuring_share: float = 0.05
    """Of a core, for the measurements of one rank: reports of the others are made by the same thread."""
    measuring_burst_s: float = 0.5
    """Seconds of a core at once."""
    report_bytes: int = 1_200_000
    """Of what is told of a node, before it is packed to a quarter of that: who reads it unpacks no more than 2 MiB. The
    ranks that report most lose their measurements first: eight ranks with 400 microbatches each keep them all."""

    # who may come in, and stay away

    pods: int = 64
    """With a socket of their own, a descriptor each: as many as a NodeReport takes GPUs, which are a pod's alone. As
    many again are there for those with several."""
    doors_per_pod: int = 16
    """One for each of its containers with a GPU, of which a large node has so many."""
    connections: int = 384
    """At a time, each with a descriptor or two."""
    connections_per_pod: int = 32
    """Twice the ranks of a large node: the old ones may not be gone yet."""
    connects_burst: float = 64.0
    connects_per_s: float = 2.0
    """Connections of one pod on average, after a burst: ranks whose agent was away ask again every five seconds."""
    hellos_per_pod: int = 2
    """In the pool at once: each may wait for the kubelet and the API server."""
    recheck_s: float = 10.0
    """Between two times that the kubelet is asked whether the GPU of a rank is still its pod's alone."""
    silence_s: float = 60.0
    """Longest time for which a rank may pass no marker while its clock is locked, however long its iterations."""

    # what a JobPlan may ask of it

    most_slowdown: float = 0.5
    """How much longer than at default clocks a plan may let an iteration last, as a fraction: an EnergyPlan allows no
    more than that."""

    def among(self, gpus: int) -> Self:
        """The same, where so many GPUs share the agent's memory."""
        share = min(1.0, _GPUS / max(1, gpus))
        return replace(
            self,
            marks=int(self.marks * share),
            pending_bytes=int(self.pending_bytes * share),
            window_cells=int(self.window_cells * share),
        )


BUDGET: Final = Budget()
