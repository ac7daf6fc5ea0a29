"""Finding the node's GPUs, however late they come, and noticing when they answer no more.

An agent runs on every node that its DaemonSet selects; where there are none, `absence` tells whether that is a fault.
If it is, the agent isn't ready, goes on trying, and after a while asks to be restarted, since a container gets the
driver's libraries when it is made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from joulepath_agent.gpus.absence import Absence, explain
from joulepath_agent.gpus.nvml import Gpu, GpuError

__all__ = ["SILENT_S", "Discovery"]

log = logging.getLogger(__name__)

SILENT_S: Final = 30.0
"""A GPU for which NVML hasn't answered for so long doesn't answer."""
_HOPELESS_S: Final = 300.0
_PROBE_S: Final = 5.0


class Discovery:
    """Looks for GPUs, and asks those found now and then whether they are still there."""

    def __init__(
        self,
        open_gpus: Callable[[], tuple[Sequence[Gpu], Sequence[str]]],
        adopt: Callable[[Sequence[Gpu]], None],
        left_locked: Callable[[], Collection[str]],
        *,
        proc: Path,
        retry_s: float,
    ) -> None:
        """Looks once, at once.

        Args:
            open_gpus: Opens all GPUs of the node, and tells what is wrong with those it can't: `nvml.open_gpus`.
            adopt: Is given those that it doesn't have yet.
            left_locked: UUIDs of GPUs that may be locked.
            proc: The host's /proc, where a loaded driver shows.
            retry_s: Between two looks.
        """
        self._open, self._adopt, self._left_locked = open_gpus, adopt, left_locked
        self._driver = proc / "driver" / "nvidia" / "version"
        self._retry_s = retry_s
        self._gpus: tuple[Gpu, ...] = ()
        self._unread: tuple[str, ...] = ()
        self._trouble, self._told = "", ""
        self._well_at_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        self._look()

    def start(self) -> None:
        """Starts looking again and again."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    @property
    def well(self) -> bool:
        """Whether NVML answers for a GPU, or the node has none."""
        if not self._gpus:
            return not self._trouble
        now = time.monotonic()
        return any(gpu.silent_s(now) < SILENT_S for gpu in self._gpus)

    @property
    def hopeless(self) -> bool:
        """Whether that has been so for so long that only another container can help."""
        return time.monotonic() - self._well_at_s > _HOPELESS_S

    def _run(self) -> None:
        next_look_s = time.monotonic() + self._retry_s
        while not self._stop.wait(min(_PROBE_S, self._retry_s)):
            try:
                if time.monotonic() >= next_look_s and self._incomplete:
                    next_look_s = time.monotonic() + self._retry_s
                    self._look()
                self._probe()
            except Exception:
                log.exception("looking for GPUs failed; trying again")

    def _probe(self) -> None:
        for gpu in self._gpus:
            try:
                gpu.sm_clock_mhz()
            except GpuError as error:
                log.error("%s", error)
        if self.well:
            self._well_at_s = time.monotonic()

    @property
    def _incomplete(self) -> bool:
        known = {gpu.uuid for gpu in self._gpus}
        return not known or bool(self._unread) or not set(self._left_locked()) <= known

    def _look(self) -> None:
        known = {gpu.uuid for gpu in self._gpus}
        try:
            found, unread = self._open()
        except GpuError as error:
            driver = self._driver.exists()
            self._tell(explain(error, self._left_locked(), driver_is_loaded=driver, retry_s=self._retry_s))
            return
        if self._unread != (told := tuple(unread)):
            self._unread = told
            for what in told:
                log.error("%s; this GPU is left alone until it can be read", what)
        fresh = tuple(gpu for gpu in found if gpu.uuid not in known)
        if fresh:
            self._adopt(fresh)
            self._gpus = (*self._gpus, *fresh)
        elif not known:
            self._tell(Absence("NVML shows no GPU that can be used", is_fault=bool(self._left_locked())))

    def _tell(self, absence: Absence) -> None:
        self._trouble = absence.what if absence.is_fault else ""
        if absence.what != self._told:
            self._told = absence.what
            (log.error if absence.is_fault else log.info)("%s", absence.what)
