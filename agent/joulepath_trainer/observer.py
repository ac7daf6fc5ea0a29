"""Watches this rank's training from the first training step to the end of the process; it fails open.

`Observer` is the only thing that adapters call. It counts training steps, finds the agent, and hands what happens to a
`Session` while there is one. Nothing that goes wrong in here reaches the training: an error switches the observer off
for good, with one line in the log; an agent that is absent is looked for again at the first training step after
`RETRY_S` seconds; one that refuses this rank for now, after pauses that double; one that refuses it for good, never.
"""

from __future__ import annotations

import atexit
import functools
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from joulepath_trainer.attempts import Attempt
from joulepath_trainer.connection import (
    AgentBusyError,
    AgentGoneError,
    AgentRefusedError,
    AgentUnwillingError,
    Handshake,
)
from joulepath_trainer.identity import Work, hello_of
from joulepath_trainer.marking.marks import Marker, choose_marker
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.session import BegunInstruction, Session

__all__ = ["RETRY_S", "Observer"]

RETRY_S: Final = 5.0
"""Between two looks for an agent that is absent: one that was replaced is back within seconds."""
_BUSY_S: Final = 0.1
"""Before the first look after one at which more connected than it has room for; then twice as long, up to RETRY_S."""
_LONGEST_RETRY_S: Final = 300.0
"""Between two askings of an agent that doesn't want this rank."""
_ANSWER_S: Final = 30.0
"""An agent that is there may wait for the kubelet and the API server before it answers."""
_EVALUATIONS: Final = 3
"""Iterations in a row that evaluate, before an evaluation is no news."""
_log = logging.getLogger("joulepath")
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _fails_open(method: Callable[Concatenate[Observer, _P], _R]) -> Callable[Concatenate[Observer, _P], _R | None]:
    @functools.wraps(method)
    def guarded(self: Observer, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(self, *args, **kwargs)
        except AgentGoneError as gone:
            self.lose_agent(gone)
        except Exception as error:
            self.switch_off(error)
        return None

    return guarded


class Observer:
    """Counts training steps and tells the agent of them. No method raises; each is cheap when there is no agent."""

    def __init__(
        self,
        socket_path: str,
        patience_s: float = 1.0,
        clock_s: Callable[[], float] = time.monotonic,
        *,
        seen: Callable[[], tuple[str, str]] = lambda: ("", ""),
    ) -> None:
        """Nothing happens before the first training step.

        Args:
            socket_path: Where the agent listens.
            patience_s: Waited at most, once, at that step, for the answer of an agent that listens.
            clock_s: Tells the seconds that pass between training steps.
            seen: Tells the frameworks with their versions, and what of them isn't seen.
        """
        self._socket_path = socket_path
        self._iteration = -1
        self._off = False
        self._handshake: Handshake | None = None
        self._marker: Marker | None = None
        self._session: Session | None = None
        self._page: OwnPage | None = None
        self._attempt = Attempt()
        self._clock_s = clock_s
        self._ask_at_s = -math.inf
        """When the agent is asked (again)."""
        self._give_up_at_s = math.inf
        """Until when its answer is waited for."""
        self._said_absent = False
        self._said_unwilling = self._said_lacks = False
        self._turned_down_by: type[AgentGoneError] | None = None
        self._retries = 0
        """Askings in a row, after the first, that were turned down in the same way."""
        self._registered = False
        self._patience_s = patience_s
        self._seen = seen
        self._evaluated = 0
        """Iterations in a row in which an evaluation began, or after which."""
        self._evaluates = False

    @property
    def off(self) -> bool:
        """Whether nothing will be observed any more."""
        return self._off

    @property
    def iteration(self) -> int:
        """Number of the last training step that has begun; -1 before the first."""
        return self._iteration

    def count_step(self) -> None:
        """A training step that is not observed begins."""
        if self._iteration >= 0:  # else none has ended
            self._evaluated, self._evaluates = (self._evaluated + 1 if self._evaluates else 0), False
        self._iteration += 1

    @_fails_open
    def begin_step(self, work: Work) -> bool:
        """A training step begins; returns whether it is observed.

        Every rank calls this for every training step, so the numbers agree among ranks.
        """
        self.count_step()
        if self._off:
            return False
        if self._session is None:
            self._look_for_agent(work)
        if self._session is None:
            return False
        self._session.begin_step(self._iteration)
        return True

    @_fails_open
    def evaluate(self) -> bool:
        """An evaluation begins, in a step or between two; whether that is news.

        It is none where each of the last steps had one, as with a teacher's model: then it is a part of each.
        """
        self._evaluates = True
        if self._evaluated >= _EVALUATIONS:
            return False
        if self._session is not None:
            self._session.part()
        return True

    @_fails_open
    def part(self) -> None:
        """A step begins that isn't observed, or the one before turns out to have made none of the optimizer's."""
        if self._session is not None:
            self._session.part()

    @_fails_open
    def begin_instruction(
        self, kind: str, stage: int, microbatch: int, back: tuple[int, int] = (0, 0)
    ) -> BegunInstruction | None:
        """An instruction begins; the token is for `end_instruction`. `back`: as the session's."""
        return None if self._session is None else self._session.begin_instruction(kind, stage, microbatch, back)

    @_fails_open
    def end_instruction(self, token: BegunInstruction) -> None:
        """An instruction has ended."""
        if self._session is not None:
            self._session.end_instruction(token)

    @_fails_open
    def end_step(self, whole: bool = True, told: bool = True) -> None:
        """A training step has ended; not `whole` if by an exception, not `told` if what ran in it isn't known."""
        if self._session is not None:
            self._session.end_step(whole, told)

    def restart(self) -> None:
        """What this process trains is another thing than was thought: counts, and tells the agent, from the start."""
        self._drop()
        self._iteration, self._ask_at_s = -1, -math.inf

    def lose_agent(self, gone: AgentGoneError) -> None:
        """No agent for now."""
        self._drop()
        self._retries = self._retries + 1 if type(gone) is self._turned_down_by else 0
        self._turned_down_by = type(gone)
        doubled = 2.0 ** min(self._retries, 20)
        if isinstance(gone, AgentUnwillingError):
            level = logging.DEBUG if self._said_unwilling else logging.WARNING
            _log.log(level, "training goes on unobserved, the agent is asked again: %s", _line(gone))
            self._said_unwilling = True
            pause_s = min(_LONGEST_RETRY_S, RETRY_S * doubled)
        elif isinstance(gone, AgentBusyError):
            pause_s = min(RETRY_S, _BUSY_S * doubled)
        else:
            level = logging.DEBUG if self._said_absent else logging.INFO
            _log.log(level, "%s; training goes on, the agent is looked for again every %.0f s", gone, RETRY_S)
            self._said_absent = True
            pause_s = RETRY_S
        self._ask_at_s = self._clock_s() + pause_s

    def switch_off(self, error: Exception) -> None:
        """No agent ever again in this process."""
        if not self._off:
            refused = isinstance(error, AgentRefusedError)
            reason = f"the agent refused this rank: {_line(error)}" if refused else " ".join(repr(error).split())
            _log.warning("not observed any more, training goes on: %s", reason)
        self._off = True
        self._drop()

    def _look_for_agent(self, work: Work) -> None:
        attempt = self._attempt.ask()
        if attempt is None:
            return
        if self._handshake is None:
            if self._clock_s() < self._ask_at_s:
                return
            self._register()
            self._marker = choose_marker(work.device)
            self._give_up_at_s = self._clock_s() + _ANSWER_S
            self._page = self._page or OwnPage()
            framework, lacks = self._seen()
            if lacks and not self._said_lacks:
                self._said_lacks = True
                _log.warning("%s", lacks)
            hello = hello_of(work, self._marker, attempt, framework=framework, lacks=lacks)
            self._handshake = Handshake(self._socket_path, hello, self._page.descriptor)
        if self._marker is None or self._page is None or not self._marker.ready():
            return
        patience_s, self._patience_s = self._patience_s, 0.0
        connection = self._handshake.poll(patience_s)
        if connection is not None:
            self._handshake = None
            self._said_absent, self._said_unwilling, self._turned_down_by = False, False, None
            try:
                self._session = Session(connection, self._page, self._marker)
            except BaseException:
                connection.close()
                raise
        elif self._clock_s() >= self._give_up_at_s:
            raise AgentGoneError(f"the agent at {self._socket_path} doesn't answer")

    def _register(self) -> None:
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._become_child)
            atexit.register(self._finish)

    def _become_child(self) -> None:
        """A forked child (a DataLoader's worker) is not this rank: it neither holds its socket nor marks its work."""
        page, self._page = self._page, None
        if page is not None:
            os.close(page.descriptor)
        if self._session is None and self._handshake is None:
            return
        self._off = True
        self._drop()

    def _finish(self) -> None:
        session, self._session, self._off = self._session, None, True
        try:
            if session is not None:
                session.finish()
        except Exception as error:
            _log.debug("the last records were lost: %r", error)

    def _drop(self) -> None:
        session, self._session = self._session, None
        handshake, self._handshake = self._handshake, None
        for held in (session, handshake):
            try:
                if isinstance(held, Session):
                    held.hang_up()
                elif held is not None:
                    held.close()
            except OSError:
                pass


def _line(error: Exception) -> str:
    """What an agent gives as its reason, as one line of the log."""
    return " ".join(f"{error!s:.200}".split())
