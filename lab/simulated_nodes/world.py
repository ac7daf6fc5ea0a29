"""A control plane with the chart's release, the operator's own process, and processes of simulated nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from simulated_nodes.fleet import Fleet
from simulated_nodes.job import Job
from simulated_nodes.place import Place, free_port, place, process
from simulated_nodes.population import Population
from simulated_nodes.readings import Reading, read
from simulated_nodes.release import OPERATOR, Release, install
from simulated_nodes.watching import Watch

__all__ = ["Told", "World"]

_NODES_A_PROCESS: Final = 256
_AGENTS_A_SECOND: Final = 16.0
_SETTLES_S: Final = 10.0
_LAB: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Told:
    """What nodes have told so far: when each had which plan `staged` or `applied` first, and their calls."""

    first_s: Mapping[tuple[str, str], Mapping[str, float]]
    """By what happened and the plan's hash, then by node."""
    _counts: Sequence[Sequence[tuple[float, Mapping[str, int]]]]
    """Of each process, second by second."""
    late_s: float
    """How late iterations were begun at most: simulated nodes that have too little of the machine."""

    def calls(self, begin_s: float, end_s: float) -> Counter[str]:
        """Between two moments, all nodes' together."""
        found: Counter[str] = Counter()
        for of_process in self._counts:
            before, after = (
                [counts for at_s, counts in of_process if at_s <= now_s][-1:] for now_s in (begin_s, end_s)
            )
            found.update(after[0] if after else {})
            found.subtract(before[0] if before else {})
        return +found


@dataclass(slots=True)
class World:
    """What runs; `pids` are those of the operator and of the nodes' processes."""

    place: Place
    population: Population
    _release: Release
    _stack: ExitStack
    pids: dict[str, int] = field(default_factory=dict)
    operator_starts: int = 0
    _operator: subprocess.Popen[bytes] | None = None
    _files: list[Path] = field(default_factory=list)

    @classmethod
    @contextmanager
    def begun(cls) -> Iterator[Self]:
        """With a folder that goes with it."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joulepath-nodes-")))
            here = stack.enter_context(place(folder))
            yield cls(here, Population(here), install(here), stack)

    def start_operator(self) -> None:
        """The operator's own command, as the chart starts it, but for its ports; again where it has ended."""
        if self._operator is not None and self._operator.poll() is None:
            return
        self.operator_starts += 1
        token = self.population.token(OPERATOR)
        ports = [f"--{name}-port={free_port()}" for name in ("metrics", "health")]
        command = [sys.executable, "-m", "joulepath_operator", *self._release.arguments]
        environment = {**self._release.environment, "KUBECONFIG": str(self.place.kubeconfig("operator", token))}
        log = self.place.folder / f"operator-{self.operator_starts}.log"
        self._operator = self._start("operator", [*command, "--metrics-host=127.0.0.1", *ports], log, environment)

    def start_nodes(self, tokens: dict[str, str], jobs: Sequence[Job], stages: int, microbatches: int) -> float:
        """In processes of some hundred each; when their jobs begin, by the monotonic clock."""
        over_s = len(tokens) / _AGENTS_A_SECOND
        jobs_at_s, names = time.monotonic() + over_s + _SETTLES_S, list(tokens)
        for number, first in enumerate(range(0, len(names), _NODES_A_PROCESS)):
            own = {name: tokens[name] for name in names[first : first + _NODES_A_PROCESS]}
            file, told = (self.place.folder / f"fleet-{number}.{kind}" for kind in ("json", "told"))
            told.touch()
            self._files.append(told)
            shape = (stages, microbatches)
            Fleet(
                self.place.url, str(self.place.authority), str(told), own, tuple(jobs), *shape, jobs_at_s, over_s
            ).write(file)
            command = [sys.executable, "-m", "simulated_nodes.fleet", str(file)]
            log, path = self.place.folder / f"fleet-{number}.log", os.environ.get("PYTHONPATH", "")
            self._start(f"nodes {number}", command, log, {"PYTHONPATH": f"{_LAB}:{path}"})
        return jobs_at_s

    def watch(self, plural: str) -> Watch:
        """Of a resource of ours."""
        watch = Watch(self.place.api(), plural)
        self._stack.callback(watch.stop)
        return watch

    def reading(self) -> Reading:
        """As it is now."""
        return read(self.place, self.pids)

    def told(self) -> Told:
        """By all nodes so far."""
        first: dict[tuple[str, str], dict[str, float]] = {}
        counts: list[list[tuple[float, Mapping[str, int]]]] = []
        late_s = 0.0
        for file in self._files:
            counts.append([])
            for line in map(json.loads, file.read_text().split("\n")[:-1]):
                if len(line) == 3:
                    counts[-1].append((line[0], line[1]))
                    late_s = max(late_s, line[2])
                else:
                    at_s, node, what, plan = line
                    first.setdefault((what, plan), {}).setdefault(node, at_s)
        return Told(first, counts, late_s)

    def _start(
        self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        started = self._stack.enter_context(process(command, log, environment))
        self.pids[name] = started.pid
        return started
