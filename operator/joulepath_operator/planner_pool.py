"""Runs the planner in a process of its own, with an end.

The worker sets an alarm on itself before it plans: a solver that doesn't come back is ended by the kernel, the pool
breaks and is made anew for the next plan.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from joulepath_operator.planning import PlanRefusal, PlanRequest, PlanResult, compute

Compute = Callable[[PlanRequest], PlanResult | PlanRefusal]


class PlannerPool:
    """`timeout_s`: whole seconds a plan may take; `observe` is told how long each took."""

    def __init__(
        self,
        timeout_s: int = 120,
        workers: int = 1,
        observe: Callable[[float], object] = lambda seconds: None,
        compute: Compute = compute,
    ) -> None:
        self._timeout_s, self._workers, self._observe, self._compute = timeout_s, workers, observe, compute
        self._pool = self._fresh()

    async def plan(self, request: PlanRequest) -> PlanResult | PlanRefusal:
        """The planner's answer; a refusal also where it takes too long or dies."""
        started, pool = time.monotonic(), self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(
                pool, _with_alarm, self._compute, request, self._timeout_s
            )
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = self._fresh()
            pool.shutdown(wait=False)
            return PlanRefusal(
                "PlannerTimeout",
                f"The planner took more than {self._timeout_s} s, or died. Ask for a coarser spec.granularity (phase "
                "or rank), or give the operator more time (--planner-timeout) or memory.",
            )
        finally:
            self._observe(time.monotonic() - started)

    def close(self) -> None:
        """Waits for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fresh(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"))


def _with_alarm(compute: Compute, request: PlanRequest, timeout_s: int) -> PlanResult | PlanRefusal:
    signal.alarm(timeout_s)
    try:
        return compute(request)
    finally:
        signal.alarm(0)
