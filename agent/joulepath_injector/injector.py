"""What happens to each container: nothing, where nobody asked; else it gets the trainer, or it is told why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulepath_injector.adjust import adjustment, has_trainer, unsuited
from joulepath_injector.folders import PodFolders, TrainerFiles
from joulepath_injector.nri.messages import Adjustment, Container, Pod
from joulepath_injector.places import FILES
from joulepath_injector.pods import Pods
from joulepath_injector.words import Done, Outcome, Runtime

__all__ = ["Injector"]

_LIMIT_S: Final = 0.1
"""What a container waits for the agent's answer."""


class Injector:
    """The plugin."""

    def __init__(self, pods: Pods, trainer: TrainerFiles, folders: PodFolders) -> None:
        self._pods, self._trainer, self._folders = pods, trainer, folders

    def synchronized(self, pods: Sequence[Pod], containers: Sequence[Container]) -> None:
        """All that is there when the plugin comes: containers that have the trainer, and others that can't get it."""
        self._pods.only(pods)
        uids = {pod.sandbox: pod.uid for pod in pods}
        alive = {(uids.get(container.sandbox, ""), container.id) for container in containers}
        for container in containers:
            if (uid := uids.get(container.sandbox)) is None:
                continue
            if self._files(container) - {self._trainer.folder}:
                self._pods.done(Done(uid, container.name, Outcome.INJECTED))
            elif not has_trainer(container):
                self._pods.before(uid, container.name)
        self._pods.runtime(Runtime(told=True))
        self._folders.forget(set(uids.values()), alive)
        self._trainer.forget({used for container in containers for used in self._files(container)})

    def came(self, pod: Pod) -> None:
        """A sandbox was made."""
        self._pods.came(pod)

    def left(self, pod: Pod) -> None:
        """A sandbox is stopped or removed: no container of it runs."""
        if self._pods.left(pod):
            self._folders.remove(pod.uid)

    def created(self, pod: Pod, container: Container) -> Adjustment | None:
        """A container is being made: what it gets besides."""
        self._pods.came(pod)
        answer = self._pods.wait(pod.uid, _LIMIT_S)
        if answer is None:
            self._pods.late(pod.uid, container.name)
            return None
        if container.name not in answer.containers or has_trainer(container):
            return None
        made, why = self._made(pod, container)
        self._pods.done(Done(pod.uid, container.name, Outcome.UNSUITED if why else Outcome.INJECTED, why))
        return made

    def stopped(self, pod: Pod, container: Container) -> None:
        """A container has ended: its folder goes, and with that whatever is held for it, whoever else fails."""
        self._folders.remove(pod.uid, container.id)

    def _made(self, pod: Pod, container: Container) -> tuple[Adjustment | None, str]:
        """What it gets, or why it can't get it. What isn't there can't be mounted: the container would fail."""
        if why := unsuited(pod, container):
            return None, why
        try:
            return adjustment(container, self._trainer.place(), self._folders.make(pod.uid, container.id)), ""
        except OSError as error:
            return None, f"The node has no files for it: {error}."

    def _files(self, container: Container) -> set[Path]:
        """The folder of the trainer's files, of whichever release, that a container has from an injector; or that of
        all releases, which it has from the webhook."""
        mounted = {Path(mount.source) for mount in container.mounts if mount.destination == FILES}
        return {source for source in mounted if self._trainer.folder in (source, source.parent)}
