"""Perseus's optimizer (`lowtime` from PyPI) on a profile with 1F1B: a program of its own, which `benchmarks/planner.py`
runs with the Python of a virtual environment that has lowtime in it.

    python lowtime_frontier.py PROFILE.csv STAGES MICROBATCHES BLOCKING_POWER_W UNIT_S

Times are rounded down to whole units; Perseus's was a millisecond. Writes one JSON object: seconds taken, also those of
the CPU, and for each point of the frontier its iteration time (s, rounded), and the clocks (MHz) of each stage's
instructions in order.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

import networkx  # type: ignore[import-untyped]
from lowtime.cost_model import ExponentialModel  # type: ignore[import-not-found]
from lowtime.graph_utils import add_sink_node, add_source_node  # type: ignore[import-not-found]
from lowtime.operation import CandidateExecutionOptions, ExecutionOption, OperationSpec  # type: ignore[import-not-found]
from lowtime.perseus.instruction import Backward, Forward  # type: ignore[import-not-found]
from lowtime.perseus.schedule import Synchronous1F1B  # type: ignore[import-not-found]
from lowtime.solver import PhillipsDessouky  # type: ignore[import-not-found]

KINDS = {"forward": Forward, "backward": Backward}


def specs(path: str, blocking_power_w: float, unit_s: float) -> dict[int, dict[Any, Any]]:
    options: dict[tuple[int, str], list[Any]] = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            option = ExecutionOption(float(row["time"]), unit_s, float(row["energy"]), int(row["frequency"]))
            options[int(row["stage"]), row["instruction"]].append(option)
    found: dict[int, dict[Any, Any]] = defaultdict(dict)
    for (stage, kind), series in options.items():
        candidates = CandidateExecutionOptions(options=series)
        for option in candidates.options:
            option.cost -= blocking_power_w * option.quant_time * unit_s
        found[stage][KINDS[kind]] = OperationSpec(options=candidates, cost_model=ExponentialModel(candidates))
    return found


def graph(by_stage: dict[int, dict[Any, Any]], stages: int, microbatches: int) -> tuple[Any, list[list[Any]]]:
    dag = networkx.DiGraph()
    node_of: dict[tuple[Any, int, int], int] = {}
    orders = []
    for stage in range(stages):
        order = list(Synchronous1F1B(stages, microbatches, stage, by_stage[stage]))
        orders.append(order)
        nodes = [2 + len(node_of) + place for place in range(len(order))]
        for node, one in zip(nodes, order, strict=True):
            dag.add_node(node, op=one)
            node_of[type(one), one.stage_id, one.micro_batch_id] = node
        dag.add_edges_from(pairwise(nodes))
    for (kind, stage, microbatch), node in node_of.items():
        after = node_of.get((kind, stage + (1 if kind is Forward else -1), microbatch))
        if after is not None:
            dag.add_edge(node, after)
    add_source_node(dag, 0)
    add_sink_node(dag, 1)
    dag.graph.update(source_node=0, sink_node=1)
    return dag, orders


def main(path: str, stages: str, microbatches: str, blocking_power_w: str, unit_s: str) -> None:
    begin, cpu_begin = time.perf_counter(), time.process_time()
    dag, orders = graph(specs(path, float(blocking_power_w), float(unit_s)), int(stages), int(microbatches))
    points = [
        (result.real_time, [[one.assigned_knob for one in order] for order in orders])
        for result in PhillipsDessouky(dag).run()
    ]
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "points": points}))


if __name__ == "__main__":
    main(*sys.argv[1:])
