"""NVML, open while it is needed and let go of else. Agent and warden each have one.

A process that keeps NVML open has the driver's devices open: it stands in the way of `nvidia-smi --gpu-reset`, of
driver reloads and of changes of the MIG mode. Calls may come from any thread and may hang; NVML is never shut down
while one is under way.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import pynvml

__all__ = ["Session"]


class Session:
    """The process's use of NVML. As a context it is open, for the time of some calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self.number = 0
        """Of the opening in force, from 1 on, since handles are good for one only; 0 while NVML is let go of."""
        self._openings = 0

    def open(self) -> int:
        """Opens NVML unless it is open; the opening's number.

        Raises:
            pynvml.NVMLError: There is no library, or it fails.
        """
        with self._lock:
            self._open()
            return self.number

    def let_go(self) -> bool:
        """Shuts NVML down unless a call is under way; whether it is down."""
        with self._lock:
            if self.number and not self._calls:
                with contextlib.suppress(pynvml.NVMLError):  # what can't be shut down is not open
                    pynvml.nvmlShutdown()
                self.number = 0
            return not self.number

    def __enter__(self) -> None:
        """Raises: pynvml.NVMLError: See open."""
        with self._lock:
            self._open()
            self._calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._calls -= 1
            if isinstance(error, pynvml.NVMLError_Uninitialized):
                self.number = 0

    def _open(self) -> None:
        if not self.number:
            pynvml.nvmlInit()
            self._openings += 1
            self.number = self._openings
