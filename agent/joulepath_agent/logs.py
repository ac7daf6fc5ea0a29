"""The log: lines go through a bounded queue to a thread of their own, the only one that writes.

Whoever logs may hold a rank's lock. If nobody drains the pipe that the log is written to, a write blocks for good; here
it blocks that thread alone. Lines beyond the queue are dropped and counted.
"""

from __future__ import annotations

import logging
import os
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Final

__all__ = ["Log"]

_LINES: Final = 4096


class Log:
    """What all loggers of this process write to."""

    def __init__(self, level: str, form: str, descriptor: int, lines: int = _LINES) -> None:
        """Begins to write.

        Args:
            level: Of the least lines that are written, as `logging` names it.
            form: Of a line, as `logging.Formatter` takes it.
            descriptor: What is written to; stays open.
            lines: That may wait.
        """
        self._queue: Queue[logging.LogRecord] = Queue(lines)
        self._handler = _Dropping(self._queue)
        _Writer(self._queue, self._handler, descriptor).start()
        logging.basicConfig(level=level, format=form, handlers=[self._handler], force=True)

    def dropped_lines(self) -> int:
        """Lines that the queue didn't take."""
        return self._handler.dropped

    def flush(self, timeout_s: float) -> bool:
        """Waits until all is written, for so long at most; whether it is."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout_s)


class _Dropping(QueueHandler):
    """Queues lines, and counts those that the queue doesn't take."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except Full:
            self.dropped += 1


class _Writer(QueueListener):
    """Writes lines to a descriptor, past the handlers and their locks: at its end, the interpreter waits for these."""

    def __init__(self, queue: Queue[logging.LogRecord], handler: _Dropping, descriptor: int) -> None:
        super().__init__(queue)
        self._handler, self._descriptor = handler, descriptor
        self._told = 0

    def handle(self, record: logging.LogRecord) -> None:
        text = record.getMessage() + "\n"  # made by the handler
        if (dropped := self._handler.dropped) > self._told:
            text += f"{dropped - self._told} lines of the log were dropped: nobody read it\n"
            self._told = dropped
        left = text.encode(errors="backslashreplace")
        while left:
            left = left[os.write(self._descriptor, left) :]
