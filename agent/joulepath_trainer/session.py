"""What this rank tells the agent that has accepted it: markers of what happens now, records of what has happened."""

from __future__ import annotations

import logging
import socket
from collections import deque
from typing import Final

from joulepath_trainer.connection import AgentGoneError
from joulepath_trainer.iterations import MarkedIteration, PendingIterations
from joulepath_trainer.marking.marks import Marker
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import IterationRecord
from joulepath_trainer.wire.page import Ending, MarkerEvent
from joulepath_trainer.wire.parts import MOST_INSTRUCTIONS, parts_of

__all__ = ["BegunInstruction", "Session"]

_log = logging.getLogger("joulepath")
_MOST_WAITING: Final = 16
"""Messages that an agent, which reads of each rank no more than it has time for, hasn't taken yet."""

BegunInstruction = tuple[str, int, int, tuple[int, int], int]
"""Kind, stage, microbatch, those of a pair's backward, and time stamp of the begin of an instruction."""


class Session:
    """An accepted connection: marks what happens now, and sends records of what has happened."""

    def __init__(self, connection: socket.socket, page: OwnPage, marker: Marker) -> None:
        self._connection, self._page = connection, page
        self._marks = page.marks(marker)
        self._pending = PendingIterations(self._marks)
        self._current: MarkedIteration | None = None
        self._computing = False
        """Whether an instruction of it runs."""
        self._ended: int | None = None
        """The number of the one that has ended, and was not parted from the next yet."""
        self._waiting: deque[bytes] = deque()
        """Messages that didn't fit the socket's queue yet."""
        self._said_lost = False

    def begin_step(self, number: int) -> None:
        """Marks the begin of a training step."""
        self._current = iteration = MarkedIteration(number)
        self._computing, self._ended = False, None
        stamp = self._mark(MarkerEvent.STEP_BEGIN, iteration)
        if stamp is None:
            self._current = None
        else:
            iteration.begin = stamp

    def begin_instruction(
        self, kind: str, stage: int, microbatch: int, back: tuple[int, int] = (0, 0)
    ) -> BegunInstruction | None:
        """Marks the begin of an instruction of the step; nothing outside of one.

        `back`: stage and microbatch of the backward of a pair.
        """
        iteration = self._current
        if iteration is None:
            return None
        stamp = self._mark(MarkerEvent.BEGIN, iteration, kind, stage, microbatch)
        if stamp is None:
            iteration.whole = False
            return None
        self._computing = True
        return kind, stage, microbatch, back, stamp

    def end_instruction(self, token: BegunInstruction) -> None:
        """Marks the end of the instruction."""
        iteration = self._current
        if iteration is None:
            return
        self._computing = False
        kind, stage, microbatch, back, begin = token
        end = self._mark(MarkerEvent.END, iteration, kind, stage, microbatch)
        if end is None:
            iteration.whole = False
        else:
            iteration.spans.append((kind, stage, microbatch, back, begin, end))

    def end_step(self, whole: bool, told: bool = True) -> None:
        """Marks the end of the step and sends the records that are due; there is none of this one unless it is `told`.

        Raises:
            AgentGoneError: There is nobody to send them to.
        """
        iteration, self._current = self._current, None
        if iteration is None:
            return
        stamp = self._mark(MarkerEvent.STEP_END, iteration, microbatch=Ending.WHOLE if whole else Ending.BROKEN)
        if stamp is None:
            # A CUDA graph is being captured; to ask for an event now could spoil it.
            self._marks.recycle(iteration.stamps)
            return
        iteration.end = stamp
        iteration.whole = iteration.whole and whole and told
        self._ended = iteration.number
        self._pending.add(iteration)
        if self._pending.lost:
            self._lose("the GPU is too far behind the host")
        for record in self._pending.completed():
            self._put(record)
        self._send()

    def part(self) -> None:
        """Something else than training begins: the step that runs or has just ended is over here.

        Within an instruction it is a part of that, as a teacher's model is.
        """
        iteration, number = self._current, self._ended
        if iteration is not None:
            if self._computing or not iteration.whole:
                return
            iteration.whole, number = False, iteration.number
        elif number is None:
            return
        else:
            self._ended = None
        marked = self._enqueue(MarkerEvent.STEP_END, number, microbatch=Ending.PARTED)
        stamps = [marked[1]] if marked is not None else []
        if iteration is None:
            self._pending.part(stamps)
        else:
            self._marks.recycle(stamps)  # nobody asks when that was

    def finish(self) -> None:
        """Sends what is left and hangs up, at the end of the process.

        Raises:
            AgentGoneError: There is nobody to send it to.
        """
        for record in self._pending.completed(last=True):
            self._put(record)
        self._send()
        self.hang_up()

    def hang_up(self) -> None:
        """Closes the connection, and leaves nothing of it in the process."""
        self._connection.close()
        current, self._current = self._current, None
        if current is not None:
            self._marks.recycle(current.stamps)
        self._pending.drop()

    def _mark(
        self, event: MarkerEvent, iteration: MarkedIteration, kind: str = "", stage: int = 0, microbatch: int = 0
    ) -> int | None:
        if (marked := self._enqueue(event, iteration.number, kind, stage, microbatch)) is None:
            return None
        place, stamp = marked
        iteration.places.add(place)
        iteration.stamps.append(stamp)
        return stamp

    def _enqueue(
        self, event: MarkerEvent, number: int, kind: str = "", stage: int = 0, microbatch: int = 0
    ) -> tuple[int, int] | None:
        """Where a marker of this step was put, and its stamp; None where none can be."""
        with self._page.lock:
            place = self._marks.place()
            if place is None:
                return None
            # The page says what the marker means before the GPU can pass it.
            sequence = self._page.writer.announce(event, number, kind, stage, microbatch)
            return place, self._marks.stamp(place, sequence)

    def _put(self, record: IterationRecord) -> None:
        """Behind those that wait; a record of which no room is left for all parts is lost."""
        if len(record.spans) > MOST_INSTRUCTIONS:
            self._lose(f"it has {len(record.spans)} instructions, {MOST_INSTRUCTIONS} can be told")
            return
        parts = list(parts_of(record))
        if self._waiting and len(self._waiting) + len(parts) > _MOST_WAITING:
            self._lose("the agent doesn't read as fast as iterations pass")
        else:
            self._waiting += parts

    def _send(self) -> None:
        try:
            while self._waiting:
                self._connection.send(self._waiting[0], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._waiting.popleft()
        except BlockingIOError:
            return  # the rest goes at the end of the next step
        except OSError as error:
            raise AgentGoneError(f"the agent is gone: {error.strerror or error}") from None

    def _lose(self, why: str) -> None:
        if not self._said_lost:
            self._said_lost = True
            _log.warning("the agent isn't told of an iteration, and perhaps of others: %s", why)
