"""What is waited for under a plan: clocks that are locked or given back, iterations, a plan that returns.

Clocks are judged by every order that the virtual driver took, never by looks, and for how long by iterations that the
GPUs computed: a running plan leaves a GPU at default clocks, too, and a busy host computes slowly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from real_cluster import NotYetError, until
from tests.end_to_end import jobs, processes
from tests.end_to_end.product import Product
from tests.end_to_end.watching import Recorder

__all__ = [
    "BACK_S",
    "RELEASED_S",
    "agent_pod",
    "gpus_of",
    "in_force",
    "kept_in_force",
    "report_version",
    "wait_at_default",
    "wait_iterations",
    "wait_reported",
    "wait_resumed",
    "wait_returned",
    "while_locked",
]

RELEASED_S = 30
"""Generous: the promise is seconds, the machine has two busy cores."""
BACK_S = 180
_REST = 2 * jobs.BLOCK_ITERATIONS + 1
"""Iterations that no plan has at default clocks one after the other: it has two control blocks at most."""


def agent_pod(release: Product, node: str) -> dict[str, Any]:
    """The agent's pod on a node, once there is one and all its programs run: another test may have had it replaced."""
    found = dict[str, Any]()

    def look() -> None:
        found.update(release.pod("agent", node))
        for program in processes.PROGRAMS:
            processes.process(found, program)

    until(f"the agent's pod on {node}", BACK_S, look)
    return found


def gpus_of(record: Recorder, job: str, node: str) -> set[str]:
    """The GPUs of a job's ranks on a node."""
    return {rank.gpu_uuid for rank in record.ranks(job, node=node).values()}


def while_locked(release: Product, record: Recorder, job: str, node: str) -> set[str]:
    """Returns at a moment when clocks of a job are locked on a node; those GPUs. Its plan is `kept_in_force`."""
    gpus, locked = gpus_of(record, job, node), set[str]()
    keep = kept_in_force(release, record, job)

    def look() -> bool:
        locked.update(release.gpus(node).locked() & gpus)
        if not locked:
            keep()
        return bool(locked)

    until(f"locks of {job} on {node}", BACK_S, look, 0.005)
    return locked


def wait_returned(release: Product, node: str, gpus: set[str], since_ns: int) -> int:
    """Until all of these GPUs were at default clocks after a moment from which on nobody holds them; a moment after.

    A successor may slow them again by then. How long it took is printed.
    """
    took_s = dict[str, float]()

    def look() -> bool:
        took_s.update(release.gpus(node).returned_s(since_ns))
        return gpus <= took_s.keys()

    assert gpus
    until(f"default clocks on {node}", RELEASED_S, look, 0.02)
    print(f"default clocks on {node} within {max(took_s[gpu] for gpu in gpus):.3f} s")
    return time.monotonic_ns()


def wait_at_default(
    release: Product, gpus: Mapping[str, set[str]], iterations: int = _REST, limit_s: float = BACK_S
) -> None:
    """Until all of these GPUs, by node, have computed so many iterations at default clocks, one after the other."""
    asked_ns, begun = time.monotonic_ns(), dict[str, tuple[int, int]]()

    def look() -> None:
        waits = ""
        for node, ones in gpus.items():
            now_ns, computed, at_default = (
                time.monotonic_ns(),
                release.gpus(node).computed(),
                release.gpus(node).at_default,
            )
            for gpu in ones:
                since_ns, before = begun.setdefault(gpu, (now_ns, computed[gpu]))
                if gpu not in at_default(since_ns):
                    begun[gpu] = now_ns, computed[gpu]
                    waits = f"{gpu} on {node} is locked"
                elif computed[gpu] < before + iterations * jobs.KERNELS:
                    waits = waits or f"{gpu} on {node} has computed {computed[gpu] - before} kernels"
        if waits:
            raise NotYetError(waits)

    until(f"{iterations} iterations at default clocks", limit_s, look)
    took_s = (max(since_ns for since_ns, _ in begun.values()) - asked_ns) / 1e9
    print(f"default clocks on {', '.join(gpus)} within {took_s:.1f} s")


def wait_iterations(
    release: Product,
    gpus: Mapping[str, set[str]],
    iterations: int = 4,
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Until these GPUs, by node, have computed on; `meanwhile` is called again and again."""
    begun = {node: release.gpus(node).computed() for node in gpus}

    def look() -> bool:
        meanwhile()
        now = {node: release.gpus(node).computed() for node in gpus}
        more = iterations * jobs.KERNELS
        return all(now[node][gpu] >= begun[node][gpu] + more for node, ones in gpus.items() for gpu in ones)

    until("the training goes on", BACK_S, look)


def kept_in_force(release: Product, record: Recorder, job: str) -> Callable[[], None]:
    """To be called again and again: a plan that the guard has stopped, on two busy cores, is asked for anew.

    So is one of ranks that were started anew: they would wait for the iteration at which their predecessors' began.
    """
    looked_at_s = 0.0

    def early() -> bool:
        plan, ranks = record.plan(job), record.ranks(job).values()
        return plan is not None and any(rank.iteration + 20 < (plan.activate_at or 0) for rank in ranks)

    ask = jobs.asking_anew(release.cluster, record, job, early)

    def look() -> None:
        nonlocal looked_at_s
        if time.monotonic() - looked_at_s > 1:
            looked_at_s = time.monotonic()
            ask()

    return look


def in_force(release: Product, record: Recorder, job: str = "uneven", ranks: int = 4) -> None:
    """Until a plan is in force for a job, which is `kept_in_force`."""
    keep = kept_in_force(release, record, job)

    def look() -> None:
        keep()
        record.applied(job, ranks, limit_s=0)

    until(f"a plan in force for {job}", 2 * BACK_S, look, 0.2)


def report_version(release: Product, node: str) -> int:
    """The version of a node's report now."""
    return int(release.cluster.kubectl("get", "nodestate", node, "--output", "jsonpath={.metadata.resourceVersion}"))


def wait_reported(record: Recorder, node: str, version: int) -> None:
    """Until a report of a node after a version has ranks of `uneven`."""

    def look() -> bool:
        return record.versions("nodestates", node)[-1].version > version and bool(record.ranks("uneven", node=node))

    until(f"ranks at the next agent of {node}", BACK_S, look)


def wait_resumed(release: Product, record: Recorder, node: str, version: int) -> None:
    """Until the agent that writes a node's reports after a version plays the plan, with clocks that are locked."""
    wait_reported(record, node, version)
    in_force(release, record)
    while_locked(release, record, "uneven", node)
