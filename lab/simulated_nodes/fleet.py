"""Many simulated nodes in one process: `python -m simulated_nodes.fleet FILE`, which `Fleet` is written to.

What happens is told to a file, a line of JSON each: `[seconds, node, what, plan]`, and once a second all counts so far
with how late the last iteration was begun on the last node: `[seconds, counts, late]`.
All processes know by the monotonic clock, which they share, when iterations begin: one as soon as the other, whatever
the arm, so that nobody has to wait for anybody. What is measured of them is the truth's.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from simulated_nodes.counting import Counted, Traffic
from simulated_nodes.job import Job
from simulated_nodes.node import Node
from simulated_nodes.release import NAMESPACE
from simulated_nodes.truth import Truth

__all__ = ["Fleet"]

_TELL_S: Final = 1.0
_TICK_S: Final = 0.05
_STACK: Final = 512 * 1024
"""Of a thread: there are two for each node."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes with their tokens, and their jobs. `jobs_at_s`: when these begin, by the monotonic clock."""

    url: str
    authority: str
    told: str
    tokens: dict[str, str]
    jobs: tuple[Job, ...]
    stages: int
    microbatches: int
    jobs_at_s: float
    agents_over_s: float
    """Agents start one after another, within these seconds, as they report ever after."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file that `write` wrote."""
        body = json.loads(path.read_text())
        jobs = tuple(
            Job(**{**job, "nodes": tuple(job["nodes"]), "pods": tuple(job["pods"])}) for job in body.pop("jobs")
        )
        return cls(**body, jobs=jobs)

    def write(self, path: Path) -> None:
        """It has tokens: for its owner alone."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))


class _Told:
    """The file that all is told to."""

    def __init__(self, path: Path) -> None:
        self._lock, self._file = threading.Lock(), path.open("a")

    def __call__(self, *line: Any) -> None:
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is ended."""
    fleet = Fleet.read(Path((arguments or sys.argv[1:])[0]))
    logging.basicConfig(level=logging.WARNING)
    threading.stack_size(_STACK)
    tell, traffic = _Told(Path(fleet.told)), Traffic()
    truth = Truth(fleet.stages, fleet.microbatches)
    period_s = truth.at_clock(0).period_s
    job_of = {node: job for job in fleet.jobs for node in job.nodes}
    nodes = [Node(name, job_of.get(name), truth, tell) for name in fleet.tokens]
    threading.Thread(target=_start_agents, args=(fleet, nodes, traffic, tell), daemon=True).start()
    played, told_at_s, late_s = -1, 0.0, 0.0
    while True:
        now_s = time.monotonic()
        while played < (now_s - fleet.jobs_at_s) / period_s - 1:
            played += 1
            for node in nodes:
                node.begin(played)
            late_s = time.monotonic() - fleet.jobs_at_s - played * period_s
        if now_s - told_at_s >= _TELL_S:
            told_at_s = now_s
            tell(now_s, traffic.so_far(), round(late_s, 3))
        time.sleep(_TICK_S)


def _start_agents(fleet: Fleet, nodes: Sequence[Node], traffic: Traffic, tell: _Told) -> None:
    for node in nodes:
        api = Counted(traffic, fleet.url, partial(fleet.tokens.__getitem__, node.name), fleet.authority)
        node.run(api, NAMESPACE)
        time.sleep(fleet.agents_over_s / len(nodes))


if __name__ == "__main__":
    sys.exit(main())
