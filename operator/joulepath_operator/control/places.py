"""Where the pods of a job run, kept from look to look: pods are listed where a report names one that isn't known.

A job whose ranks all stand asks at most every 15 s about what else nodes tell, so that whoever makes up pods costs the
API server little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.facts.placement import nodes_by_pod, parted

__all__ = ["Places"]

_ASKED_AGAIN_S: Final = 15.0


class Places:
    """Those of an EnergyPlan's job: nobody's at first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._job_uid, self._nodes, self._asked_s = "", dict[str, str](), float("-inf")

    def put(self, job_uid: str, pods: Iterable[Mapping[str, Any]]) -> None:
        """Takes in all pods of a job as they are now."""
        self._job_uid, self._nodes, self._asked_s = job_uid, nodes_by_pod(pods), self._clock()

    def standing(self, job_uid: str, told: Iterable[NodeJob]) -> tuple[tuple[NodeJob, ...], bool]:
        """What nodes tell of ranks whose pods are there, and whether the job's pods are to be listed anew."""
        nodes, left_out = parted(told, self._nodes if job_uid == self._job_uid else {})
        gang = Gang.of(nodes)
        whole = gang is not None and gang.complete
        return nodes, not whole or (left_out and self._clock() - self._asked_s >= _ASKED_AGAIN_S)
