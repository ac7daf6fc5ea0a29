"""Runs the planner in processes of its own, a few at a time, each with an end.

A process for each question: one that doesn't come back is killed, and what the solver does to its memory goes with it.
Request and answer are pickled through its standard streams (`child` is the other end), so that only that process loads
the planner and its solver. multiprocessing would run the operator's main module again in each of its processes.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, PlanRefusal, Request

__all__ = ["PlannerPool"]

_COMMAND: Final = (sys.executable, "-m", "joulepath_operator.planning.child")


class PlannerPool:
    """At most `workers` plans at a time, `timeout_s` for each; `observe` is told how many seconds each took."""

    def __init__(
        self,
        timeout_s: float = 120.0,
        workers: int = 1,
        observe: Callable[[float], object] = lambda seconds: None,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._timeout_s, self._observe, self._command = timeout_s, observe, command
        self._free = asyncio.Semaphore(workers)

    async def plan(self, request: Request) -> Answer:
        """The planner's answer; a refusal also where it takes too long or dies."""
        async with self._free:
            started = time.monotonic()
            try:
                return await self._run(pickle.dumps(request))
            finally:
                self._observe(time.monotonic() - started)

    async def _run(self, request: bytes) -> Answer:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
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
        result: Answer = pickle.loads(answer)
        return result
