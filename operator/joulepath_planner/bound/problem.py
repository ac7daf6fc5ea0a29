"""A pipeline as a problem for the solvers: its graph, its options, and what default clocks take and cost."""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_planner.graph.graph import Graph, least_period_s
from joulepath_planner.graph.options import Options, OptionTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.solvers.choice import program
from joulepath_planner.solvers.solution import Program

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A pipeline made ready for the solver at the finest granularity: one group for each instruction."""

    pipeline: Pipeline
    graph: Graph
    table: OptionTable
    power_w: float
    t_min_s: float

    @classmethod
    def of(cls, pipeline: Pipeline) -> Problem:
        graph = Graph.of(pipeline)
        power = pipeline.profile.least_wait_power_w
        defaults = [pipeline.profile.default(one.stage, one.kind).time_s for one in graph.instructions]
        table = OptionTable(pipeline.profile, power, gpus=pipeline.gpus)
        return cls(pipeline, graph, table, power, least_period_s(graph, defaults))

    def program(
        self, groups: list[list[int]], table: OptionTable | None = None, host_w: float = 0.0
    ) -> tuple[Program, list[Options]]:
        """The linear program of these groups, and their options; `table` where they are not the exact ones.

        host_w: what each second of the iteration costs besides, in all.
        """
        options = [(table or self.table).of([self.graph.instructions[node] for node in group]) for group in groups]
        return program(self.graph, groups, options, self.idle_w + host_w), options

    @property
    def idle_w(self) -> float:
        """What a second more of iteration time costs where all GPUs only wait longer."""
        return self.power_w * self.pipeline.gpu_count

    @property
    def single(self) -> list[list[int]]:
        return [[node] for node in range(len(self.graph.instructions))]

    @property
    def default_wait_w(self) -> float:
        """What all GPUs draw that wait at default clocks."""
        profile = self.pipeline.profile
        return sum(
            self.pipeline.rank_gpus(rank) * profile.wait_power_w(profile.default_clock_mhz(order[0].stage))
            for rank, order in enumerate(self.pipeline.schedule.orders)
        )

    @property
    def baseline_energy_j(self) -> float:
        """Energy of an iteration with everything at default clocks."""
        profile = self.pipeline.profile
        energy = 0.0
        for rank, order in enumerate(self.pipeline.schedule.orders):
            points = [profile.default(one.stage, one.kind) for one in order]
            waiting = self.t_min_s - sum(point.time_s for point in points)
            power = profile.wait_power_w(profile.default_clock_mhz(order[0].stage))
            energy += self.pipeline.rank_gpus(rank) * (sum(point.energy_j for point in points) + power * waiting)
        return energy
