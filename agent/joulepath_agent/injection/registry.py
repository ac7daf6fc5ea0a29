"""The pods of the node, as the injector has told them, and what became of their containers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from joulepath_agent.injection.jobs import LIMIT_S, Job, Jobs, job_of
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_crds import (
    INJECTOR_ABSENT,
    INJECTOR_READY,
    INJECTOR_UNHEARD,
    INJECTOR_UNTOLD,
    MOST_INJECTIONS,
    InjectionReport,
)
from joulepath_injector.words import NO_SOCKET, Came, Done, Runtime

__all__ = ["Registry", "ToldPods"]

_MOST_PODS: Final = 1024
"""Twice what the largest nodes run."""
_MOST_CONTAINERS: Final = 16
"""Of a pod: it has no more GPUs."""
_LONGEST_NAME: Final = 253
_LONGEST_WHY: Final = 256


@dataclass(slots=True)
class _Known:
    """A pod."""

    pod: Came
    job: Job | None = None
    """As it was read when the pod came: one that is made anew by that name is another."""
    done: dict[str, Done] = field(default_factory=dict)
    """By container."""


class Registry:
    """All pods that are there. For any thread."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """Of how many containers each was told."""
        self._lock = Lock()
        self._pods: dict[str, _Known] = {}
        self._before: dict[str, _Known] = {}
        """As another injector had told them; those that are still there are told again."""
        self._runtime: Runtime | None = None
        """As the injector has it, of which nothing is known before it says so; None where there is no injector."""

    @property
    def injector(self) -> tuple[str, str]:
        """What to report of it, and why it isn't told what is there."""
        runtime = self._runtime
        if runtime is None:
            return INJECTOR_ABSENT, ""
        if runtime.told:
            return INJECTOR_READY, ""
        state = INJECTOR_UNTOLD if runtime.why.startswith(NO_SOCKET) else INJECTOR_UNHEARD
        return state, runtime.why[:_LONGEST_WHY]

    def begin(self) -> None:
        """All pods that there are will be told."""
        with self._lock:
            self._before, self._pods = {**self._before, **self._pods}, {}
            self._runtime = Runtime(told=False)

    def runtime(self, word: Runtime) -> None:
        """Whether pods that come and go are told, and all that were there have been."""
        with self._lock:
            self._runtime = word

    def end(self) -> None:
        """The injector is gone; the pods that it has told of needn't be."""
        with self._lock:
            self._runtime = None

    def came(self, pod: Came) -> None:
        """A pod is there."""
        with self._lock:
            known = self._pods.pop(pod.uid, None) or self._before.pop(pod.uid, _Known(pod))
            self._pods[pod.uid] = _Known(pod, known.job, known.done)
            for pods in (self._pods, self._before):
                while len(pods) > _MOST_PODS:
                    del pods[next(iter(pods))]

    def left(self, uid: str) -> None:
        """A pod is gone."""
        with self._lock:
            self._pods.pop(uid, None)
            self._before.pop(uid, None)

    def belongs(self, uid: str, job: Job) -> None:
        """A pod's job was read."""
        with self._lock:
            if (known := self._pods.get(uid)) is not None:
                known.job = job

    def done(self, word: Done) -> None:
        """What became of a container."""
        with self._lock:
            known = self._pods.get(word.uid)
            if known is None or known.done.get(word.container) == word:  # said again
                return
            self.outcomes[word.outcome] += 1
            if word.container in known.done or len(known.done) < _MOST_CONTAINERS:
                known.done[word.container] = word

    def pod(self, uid: str) -> tuple[Came, Job | None] | None:
        """A pod, and its job as far as it was read."""
        with self._lock:
            known = self._pods.get(uid)
            return None if known is None else (known.pod, known.job)

    def named(self, namespace: str, name: str) -> Came | None:
        """The pod of that name: the newest, where one before it isn't gone yet."""
        with self._lock:
            found = (one.pod for one in reversed(self._pods.values()))
            return next((pod for pod in found if (pod.namespace, pod.name) == (namespace, name)), None)

    def report(self) -> tuple[InjectionReport, ...]:
        """What became of the containers of the pods that are there; of the newest pods, if there are many."""
        with self._lock:
            told = [(known.pod, done) for known in self._pods.values() for done in known.done.values()]
        return tuple(
            InjectionReport(
                pod_uid=pod.uid[:128],
                namespace=pod.namespace[:_LONGEST_NAME],
                pod=pod.name[:_LONGEST_NAME],
                container=done.container[:_LONGEST_NAME],
                outcome=done.outcome,
                why=done.why[:_LONGEST_WHY],
            )
            for pod, done in told[-MOST_INJECTIONS:]
        )


class ToldPods:
    """`Pods` of `peers.ownership` by what the injector has told: the API server isn't asked for any pod."""

    def __init__(self, registry: Registry, jobs: Jobs) -> None:
        self._registry, self._jobs = registry, jobs

    def knows(self, pod_uid: str) -> bool:
        """Whether the injector has told of this pod."""
        return self._registry.pod(pod_uid) is not None

    def uid(self, namespace: str, name: str) -> str | None:
        """The UID of a pod that is there; where pods come unheard, one that isn't known may be."""
        state, why = self._registry.injector
        found = self._registry.named(namespace, name)
        if found is None and state != INJECTOR_READY:
            told = f"injector: {state}, {why}" if why else f"injector: {state}"
            raise PeerRefusedError("Unheard", f"nobody tells whether pod {name} is there ({told})")
        return None if found is None else found.uid

    def job(self, namespace: str, name: str) -> tuple[str, str]:
        """Name and UID of the job of a pod."""
        uid = self.uid(namespace, name)
        known = None if uid is None else self._registry.pod(uid)
        named = None if known is None else job_of(known[0].labels)
        if known is None or named is None:
            raise PeerRefusedError("NoJob", f"pod {name} has no label of a job that can be planned for")
        job = known[1]
        if job is None:
            try:
                job = self._jobs.ask(namespace, named).result(LIMIT_S)
            except TimeoutError:
                raise OSError(f"{named} couldn't be read within {LIMIT_S:.0f} s") from None
        if job is None:
            raise PeerRefusedError("NoJob", f"pod {name} names {named}, which isn't there")
        return job.name, job.uid
