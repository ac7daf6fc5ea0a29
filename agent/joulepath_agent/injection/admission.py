"""The answers to the injector: of each pod that comes, which of its containers get the trainer.

Those that hold a GPU by the kubelet's word, where the API server says that the pod's job is annotated. A container
waits a tenth of a second for that, so both are asked at the same time, and never by the thread that listens. Where one
can't be asked, the answer is not final, and both are asked again after pauses that grow, while the pod is there: its
containers may be made again, and what became of them is told by the answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final

from joulepath_agent.injection.jobs import LIMIT_S, Jobs, job_of
from joulepath_agent.injection.registry import Registry
from joulepath_agent.peers.devices import NodeGpu, granted
from joulepath_agent.peers.podresources import Held, PodResourcesError
from joulepath_injector.words import Answer, Came

__all__ = ["Admission"]

log = logging.getLogger(__name__)

_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0)
"""Before it is asked again: images may take as long until a container is made. The last is repeated."""


class Admission:
    """Answers for pods, each once, or until it could be told."""

    def __init__(
        self,
        registry: Registry,
        jobs: Jobs,
        held: Callable[[], Sequence[Held]],
        gpus: Callable[[], Sequence[NodeGpu]],
        say: Callable[[Answer], object],
    ) -> None:
        """Asks nobody yet.

        Args:
            registry: The pods that are there.
            jobs: Whoever reads jobs.
            held: Asks the kubelet for all devices that containers hold.
            gpus: All of the node.
            say: Sends an answer; from any thread.
        """
        self._registry, self._jobs, self._held, self._gpus, self._say = registry, jobs, held, gpus, say
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="admission")
        self._lock = Lock()
        self._later: list[tuple[float, Came, int]] = []
        """When which pod is asked for again, and how often it was."""

    def consider(self, pod: Came) -> None:
        """A pod has come: it is answered for, sometime."""
        self._pool.submit(self._answer, pod, 0)

    def turn(self, now: float) -> None:
        """Asks again where that is due, at a time of the monotonic clock."""
        with self._lock:
            due = [one for one in self._later if one[0] <= now]
            self._later = [one for one in self._later if one[0] > now]
        for _, pod, times in due:
            if self._is_there(pod):
                self._pool.submit(self._answer, pod, times)

    def stop(self) -> None:
        """Answers no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, pod: Came, times: int) -> None:
        try:
            answer = Answer(pod.uid, self._containers(pod))
        except (OSError, PodResourcesError) as error:
            answer = Answer(pod.uid, final=False)
            if times == len(_PAUSES_S) - 1:
                log.warning("pod %s/%s gets no trainer as yet: %s", pod.namespace, pod.name, error)
        except Exception:
            log.exception("pod %s/%s gets no trainer", pod.namespace, pod.name)
            answer = Answer(pod.uid)
        self._say(answer)
        if not answer.final:
            pause_s = _PAUSES_S[min(times, len(_PAUSES_S) - 1)]
            with self._lock:
                self._later.append((time.monotonic() + pause_s, pod, times + 1))

    def _containers(self, pod: Came) -> tuple[str, ...]:
        """Those that get the trainer.

        Raises:
            OSError: The API server doesn't answer, or the node's GPUs aren't known yet.
            PodResourcesError: The kubelet doesn't.
        """
        if (name := job_of(pod.labels)) is None:
            return ()
        own = [one for one in self._held() if (one.namespace, one.pod) == (pod.namespace, pod.name)]
        # The API server isn't asked of a pod without a GPU: those of Jobs come by the dozen, and others wait meanwhile.
        if not own or (job := self._jobs.ask(pod.namespace, name).result(LIMIT_S)) is None:
            return ()
        self._registry.belongs(pod.uid, job)
        if not job.annotated:
            return ()
        if not (gpus := self._gpus()):
            raise OSError("no GPU of this node is known yet")
        return tuple(dict.fromkeys(one.container for one in own if granted(one.resource, one.device, gpus)))

    def _is_there(self, pod: Came) -> bool:
        known = self._registry.pod(pod.uid)
        return known is not None and known[0] is pod
