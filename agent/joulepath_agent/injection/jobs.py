"""The job that a pod belongs to, by the pod's labels, and whether it asks for a plan.

Labels are the word of whoever made the pod. They name a job of the pod's own namespace, so that nobody gets by them
what isn't his. They may name what the job has made, such as a JobSet: who has made it is read. A job's pods come many
at a time: it is read once for all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Final

from joulepath_agent.peers.ownership import ReadJob
from joulepath_crds import ANNOTATION
from joulepath_rules import JobName, by_labels, maker

__all__ = ["LIMIT_S", "Job", "Jobs", "job_of"]

LIMIT_S: Final = 5.0
"""What whoever asks for a job waits for it."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KNOWN_S: Final = 5.0
_FAILED_S: Final = 0.2
"""How long nobody else asks again for a job that couldn't be read."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was read."""

    name: str
    uid: str
    annotated: bool
    """Whether it asks for a plan."""


def job_of(labels: Mapping[str, str]) -> JobName | None:
    """The job of a pod with these labels, or what that has made; None if it has none."""
    job = by_labels(labels)
    return job if job is not None and _NAME.fullmatch(job.name) else None


class Jobs:
    """Reads jobs, each once for all who ask within a few seconds."""

    def __init__(self, read: ReadJob, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock_s = read, clock_s
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="jobs")
        self._lock = Lock()
        self._asked: dict[tuple[str, JobName], tuple[float, Future[Job | None]]] = {}
        """When, and what came of it."""

    def ask(self, namespace: str, name: JobName) -> Future[Job | None]:
        """The job, or that which has made it, None where one isn't there: sometime, or the OSError of whoever couldn't
        be asked."""
        with self._lock:
            now = self._clock_s()
            self._asked = {key: asked for key, asked in self._asked.items() if _holds(*asked, now)}
            if (namespace, name) not in self._asked:
                self._asked[namespace, name] = now, self._pool.submit(self._look, namespace, name)
            return self._asked[namespace, name][1]

    def stop(self) -> None:
        """Asks no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, namespace: str, name: JobName) -> Job | None:
        metadata = self._read(namespace, name)
        if metadata is None:
            return None
        if (above := maker(name.kind, metadata)) is not None:
            return self._look(namespace, above)
        return Job(metadata["name"], metadata["uid"], ANNOTATION in (metadata.get("annotations") or {}))


def _holds(at_s: float, job: Future[Job | None], now: float) -> bool:
    failed = job.done() and (job.cancelled() or job.exception() is not None)
    return not job.done() or now - at_s < (_FAILED_S if failed else _KNOWN_S)
