"""The pods of the node: what the agent has answered of each, and what became of their containers.

The runtime's thread asks, the agent's threads answer. Nobody waits here but a container that is being made, and it for
the agent alone, while there is one that answers. A pod that names no job gets no trainer, and waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from joulepath_injector.nri.messages import Pod
from joulepath_injector.words import Answer, Came, Done, InjectorWord, Left, Outcome, Runtime

__all__ = ["Pods", "Tell"]

Tell = Callable[[InjectorWord], None]
"""Takes a word for the agent, and returns at once."""


@dataclass(slots=True)
class _Known:
    came: Came
    sandboxes: set[str]
    answer: Answer | None = None
    done: dict[str, Done] = field(default_factory=dict)
    missed: dict[str, Outcome] = field(default_factory=dict)
    """Containers that were made without an answer."""

    @property
    def answered(self) -> bool:
        return self.answer is not None and (self.answer.final or bool(self.answer.containers))


class Pods:
    """Those with a sandbox."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._known: dict[str, _Known] = {}
        self._tell: Tell | None = None
        self._answers = True
        self._runtime = Runtime(told=False)

    def runtime(self, word: Runtime) -> None:
        """Whether the runtime tells what is there, from now on."""
        with self._changed:
            if word != self._runtime:
                self._runtime = word
                self._say(word)

    def came(self, pod: Pod) -> None:
        """A sandbox was made, or is there."""
        with self._changed:
            known = self._known.get(pod.uid)
            if known is not None:
                known.sandboxes.add(pod.sandbox)
                return
            came = Came(pod.uid, pod.namespace, pod.name, pod.labels)
            self._known[pod.uid] = _Known(came, {pod.sandbox}, None if pod.labels else Answer(pod.uid))
            self._say(came)

    def left(self, pod: Pod) -> bool:
        """A sandbox is gone; whether the pod is, too: one may have had a second sandbox after the first."""
        with self._changed:
            known = self._known.get(pod.uid)
            if known is None:
                return True
            known.sandboxes.discard(pod.sandbox)
            if known.sandboxes:
                return False
            del self._known[pod.uid]
            self._say(Left(pod.uid))
            return True

    def only(self, pods: Iterable[Pod]) -> None:
        """These sandboxes are there, and no others."""
        there = {(pod.uid, pod.sandbox): pod for pod in pods}
        with self._changed:
            known = [(uid, sandbox) for uid, one in self._known.items() for sandbox in one.sandboxes]
        for pod in there.values():
            self.came(pod)
        for uid, sandbox in known:
            if (uid, sandbox) not in there:
                self.left(Pod(sandbox, uid, "", ""))

    def wait(self, uid: str, limit_s: float) -> Answer | None:
        """The agent's answer, if it is there within the time.

        An agent that let somebody wait in vain isn't waited for until it has answered anything.
        """
        deadline_s = time.monotonic() + limit_s
        with self._changed:
            while (known := self._known.get(uid)) is not None:
                if known.answered:
                    return known.answer
                left_s = deadline_s - time.monotonic()
                if self._tell is None or not self._answers:
                    return None
                if left_s <= 0:
                    self._answers = False
                    return None
                self._changed.wait(left_s)
        return None

    def late(self, uid: str, container: str) -> None:
        """A container is made without an answer: so it is said if one comes that names it."""
        with self._changed:
            if (known := self._known.get(uid)) is not None:
                known.missed[container] = Outcome.LATE

    def before(self, uid: str, container: str) -> None:
        """A container is there, and has no trainer; unless it is known why, it ran before us."""
        with self._changed:
            known = self._known.get(uid)
            if known is not None and container not in known.done:
                known.missed.setdefault(container, Outcome.BEFORE)
                self._say_missed(known)

    def done(self, word: Done) -> None:
        """What has become of a container."""
        with self._changed:
            if (known := self._known.get(word.uid)) is not None:
                known.missed.pop(word.container, None)
                known.done[word.container] = word
                self._say(word)

    def answer(self, word: Answer) -> None:
        """The agent's word of a pod."""
        with self._changed:
            self._answers = True
            if (known := self._known.get(word.uid)) is not None:
                known.answer = word
                self._say_missed(known)
            self._changed.notify_all()

    def listen(self, tell: Tell) -> None:
        """An agent is there: it is told all that is known, and then what happens."""
        with self._changed:
            self._tell, self._answers = tell, True
            for known in self._known.values():
                tell(known.came)
                for done in known.done.values():
                    tell(done)
            tell(self._runtime)  # the last: who hears that all is told has heard it

    def leave(self, tell: Tell) -> None:
        """That agent is gone; what it has answered stays."""
        with self._changed:
            if self._tell == tell:
                self._tell = None
                self._changed.notify_all()

    def _say_missed(self, known: _Known) -> None:
        for container in known.answer.containers if known.answer else ():
            if (outcome := known.missed.pop(container, None)) is not None:
                known.done[container] = Done(known.came.uid, container, outcome)
                self._say(known.done[container])

    def _say(self, word: InjectorWord) -> None:
        if self._tell is not None:
            self._tell(word)
