"""The log: a line that can't be written at once is dropped, so that nothing ever waits for whoever reads it."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Final

__all__ = ["Log"]

_STANDARD_ERROR: Final = 2


class Log(logging.Handler):
    """What all loggers of this process write to: its standard error."""

    def __init__(self, level: str) -> None:
        """Begins to write."""
        super().__init__()
        self.descriptor = _STANDARD_ERROR
        with contextlib.suppress(OSError):  # a socket can't be opened again
            # Opened anew, so that it is this process's writes alone that don't wait.
            path = f"/proc/self/fd/{_STANDARD_ERROR}"
            self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
        form = "%(asctime)s %(levelname)s %(name)s %(message)s"
        logging.basicConfig(level=level.upper(), format=form, handlers=[self], force=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or drops it."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, f"{self.format(record)}\n".encode(errors="replace"))
