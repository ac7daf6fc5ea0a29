"""The planner's end of the pipe: `python -m joulepath_operator.planning.child` answers one request and ends.

Delays are learnt here, too: of a large job that takes longer than the operator's loop may stand still.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TypeVar

from joulepath_crds import Instruction
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import (
    Answer,
    FrontierRequest,
    PlanRefusal,
    PlanRequest,
    Request,
    StretchRequest,
    SurveyRequest,
)
from joulepath_operator.figures.timing.delays import delays_of
from joulepath_operator.planning.compute import compute
from joulepath_operator.planning.frontier import outline
from joulepath_operator.planning.stretching import stretch
from joulepath_operator.planning.surveying import look

__all__ = ["answer", "learnt"]

R = TypeVar("R", PlanRequest, SurveyRequest)


def answer(request: Request, budget_s: float = inf, clock: Callable[[], float] = time.monotonic) -> Answer:
    """Whatever the operator asks. budget_s: seconds within which something has to be there, learning among them."""
    started_s = clock()
    if isinstance(request, FrontierRequest):
        known = replace(request, plan=learnt(request.plan))
        return outline(known, budget_s - (clock() - started_s), clock)
    if isinstance(request, StretchRequest):
        return stretch(replace(request, plan=learnt(request.plan)))
    return look(learnt(request)) if isinstance(request, SurveyRequest) else compute(learnt(request))


def learnt(request: R) -> R:
    """The request with the delays that its iterations tell, and its orders with what differs from the rule."""
    delays = delays_of(request.iterations, request.profile.topology.stages)
    orders = []
    for labels, rank in zip(request.orders, request.iterations[0], strict=True):
        alone = rank.stages[0] if len(rank.stages) == 1 else None
        orders.append(delays.exchanges.written([Instruction.parse(label, alone) for label in labels]))
    return replace(request, delays=delays, orders=tuple(orders))


def _restrain(memory: int) -> None:
    """This process has so many bytes. That has to hold: a container that runs out of memory is killed as a whole, but
    for nodes of cgroup v1 or with the kubelet's singleProcessOOMKill, where this process is the first to go."""
    if memory:
        # Not the address space: what is reserved of that, by threads and allocators, says nothing of what is used.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _main(memory: int) -> None:
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as pipe:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # LAPACK prints where it fails: that is no part of the answer
        request, budget_s = pickle.load(sys.stdin.buffer)
        _restrain(memory)
        try:
            found = answer(request, budget_s)
        except MemoryError:
            found = PlanRefusal(
                Refusal.PLANNER_MEMORY,
                f"The planner needs more than the {memory / 2**20:.0f} MiB that it may have. Ask for a coarser "
                "spec.granularity (phase or rank), or give the operator more memory (operator.resources in the chart) "
                "and restart the job.",
            )
        pickle.dump(found, pipe)


if __name__ == "__main__":
    _main(int(sys.argv[1]) if sys.argv[1:] else 0)
