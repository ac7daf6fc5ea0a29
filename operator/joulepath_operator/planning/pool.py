"""Runs the planner in processes of its own, a few at a time, each with an end and with memory of its own.

A process for each question: one that doesn't come back is killed, and what the solver does to its memory goes with it.
Request and answer are pickled through its standard streams (`child` is the other end), so that only that process loads
the planner and its solver. multiprocessing would run the operator's main module again in each of its processes.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, FrontierRequest, PlanRefusal, Request
from joulepath_operator.planning.turns import Turns

__all__ = ["PlannerLimits", "PlannerPool"]

_COMMAND: Final = (sys.executable, "-m", "joulepath_operator.planning.child")
_BUDGET: Final = 0.9
"""Of its time: within that a process that can choose ends by itself."""
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""More help none of what is computed, and each keeps memory for itself: on a large node more than there is."""
_OPERATOR_BYTES: Final = 384 << 20
"""For the operator itself, and the files of its libraries."""
_LEAST_BYTES: Final = 256 << 20
"""For one planner: rather one at a time than several with less."""
_RESERVE: Final = 1 / 8
"""Of the container's memory: planners have a limit on their data alone, and a container that runs out of memory is
killed as a whole (cgroup v2: memory.oom.group), the operator with it."""


@dataclass(frozen=True, slots=True)
class PlannerLimits:
    """Answers that are computed at a time, and seconds and bytes that each may take (0 bytes: as many as there are)."""

    workers: int = 2
    timeout_s: float = 120.0
    memory: int = 0

    @classmethod
    def within(cls, memory: int, workers: int, timeout_s: float) -> Self:
        """In a container of so many bytes, of which the operator itself needs some and a reserve stays; fewer at a time
        where there is too little for all. 0: it has no limit."""
        shared = memory - int(memory * _RESERVE)
        left = max(shared - _OPERATOR_BYTES, shared // 2)
        workers = max(1, min(workers, left // _LEAST_BYTES)) if memory else workers
        return cls(workers, timeout_s, left // workers)


class PlannerPool:
    """Asks a process for each answer, within its limits; `observe` is told how many seconds each took."""

    def __init__(
        self,
        limits: PlannerLimits = PlannerLimits(),
        observe: Callable[[float], object] = lambda seconds: None,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._timeout_s, self._observe, self._command = limits.timeout_s, observe, (*command, str(limits.memory))
        self._turns = Turns(limits.workers)

    async def plan(self, request: Request, namespace: str = "") -> Answer:
        """The planner's answer; a refusal also where it takes too long or dies. Namespaces take turns."""
        async with self._turns.turn(namespace, later=isinstance(request, FrontierRequest)):
            started = time.monotonic()
            try:
                packed = await asyncio.to_thread(pickle.dumps, (request, _BUDGET * self._timeout_s))
                return await self._run(packed)
            finally:
                self._observe(time.monotonic() - started)

    async def _run(self, request: bytes) -> Answer:
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, **_ONE_THREAD}
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, env=environment)
        try:
            answer, _ = await asyncio.wait_for(process.communicate(request), self._timeout_s)
        except TimeoutError:
            return PlanRefusal(
                Refusal.PLANNER_TIMEOUT,
                f"The planner took more than {self._timeout_s:g} s. Ask for a coarser spec.granularity (phase or "
                "rank), or give the operator more time (--planner-timeout) and restart the job.",
            )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            return PlanRefusal(
                Refusal.PLANNER_DIED,
                f"The planner's process ended with {process.returncode} (-9: out of memory). See the operator's log, "
                "give it more memory (operator.resources in the chart), then restart the job or change the EnergyPlan.",
            )
        result: Answer = await asyncio.to_thread(pickle.loads, answer)
        return result
