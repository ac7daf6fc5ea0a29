"""Finding the node's GPUs, however late they come, and noticing when they answer no more.

While no rank is on any of them NVML is let go of, so that the agent stands in nobody's way (`nvidia-smi --gpu-reset`,
driver reloads, changes of the MIG mode); a short look now and then, and one when a rank comes, tells what has changed.

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
from typing import Final, Protocol

from joulepath_clocks.gpus.absence import Absence, explain
from joulepath_clocks.gpus.nvml import Gpu, GpuError

__all__ = ["SILENT_S", "Discovery", "Looker"]

log = logging.getLogger(__name__)

SILENT_S: Final = 30.0
"""A GPU for which NVML hasn't answered for so long doesn't answer."""
_HOPELESS_S: Final = 300.0
_PROBE_S: Final = 5.0
_TURN_S: Final = 1.0
_LINGER_S: Final = 5.0
"""How long NVML stays open for a rank that has said hello and isn't there yet."""


class Looker(Protocol):
    """NVML: see `nvml.Nvml`."""

    @property
    def is_open(self) -> bool:
        """Whether it is in use."""

    def look(self) -> tuple[Sequence[Gpu], Sequence[str]]:
        """Opens it; the GPUs, and what is wrong with those that can't be read."""

    def let_go(self) -> bool:
        """Closes it, if nobody uses it just now; whether it is closed."""


class Discovery:
    """Looks for GPUs, and asks those found now and then whether they are still there."""

    def __init__(
        self,
        nvml: Looker,
        adopt: Callable[[Sequence[Gpu]], None],
        is_idle: Callable[[], bool],
        left_locked: Callable[[], Collection[str]],
        *,
        proc: Path,
        retry_s: float,
    ) -> None:
        """Looks once, at once.

        Args:
            nvml: Where it looks.
            adopt: Is given those that it doesn't have yet.
            is_idle: Whether no GPU has a rank, and none is locked.
            left_locked: UUIDs of GPUs that may be locked.
            proc: The host's /proc, where a loaded driver shows.
            retry_s: Between two looks.
        """
        self._nvml, self._adopt, self._is_idle, self._left_locked = nvml, adopt, is_idle, left_locked
        self._driver = proc / "driver" / "nvidia" / "version"
        self._retry_s = retry_s
        self._gpus: tuple[Gpu, ...] = ()
        self._unread: tuple[str, ...] = ()
        self._trouble, self._told = "", ""
        self._well_at_s = time.monotonic()
        self._needed_until_s = 0.0
        self._next_look_s = self._next_probe_s = 0.0
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        self._look()

    def start(self) -> None:
        """Starts looking again and again."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def wake(self) -> None:
        """Opens NVML for a rank that comes: GPUs that have changed meanwhile are seen anew."""
        self._needed_until_s = time.monotonic() + _LINGER_S
        if not self._nvml.is_open:
            self._look()

    @property
    def well(self) -> bool:
        """Whether NVML answers for a GPU, or the node has none."""
        if self._trouble or not self._gpus:
            return not self._trouble
        now = time.monotonic()
        return any(gpu.silent_s(now) < SILENT_S for gpu in self._gpus)

    @property
    def hopeless(self) -> bool:
        """Whether that has been so for so long that only another container can help."""
        return time.monotonic() - self._well_at_s > _HOPELESS_S

    def _run(self) -> None:
        self._next_look_s = time.monotonic() + self._retry_s
        while not self._stop.wait(min(_TURN_S, self._retry_s)):
            try:
                self._turn(time.monotonic())
            except Exception:
                log.exception("looking for GPUs failed; trying again")

    def _turn(self, now: float) -> None:
        is_due = now >= self._next_look_s
        if is_due:
            self._next_look_s = now + self._retry_s
            if self._incomplete or not self._nvml.is_open:
                self._look()
        if self._nvml.is_open and (is_due or now >= self._next_probe_s):
            self._next_probe_s = now + _PROBE_S
            self._probe()
        if self.well:
            self._well_at_s = now
        if now >= self._needed_until_s and self._is_idle():
            self._nvml.let_go()

    def _probe(self) -> None:
        for gpu in self._gpus:
            try:
                for read in (gpu.sm_clock_mhz, gpu.power_w, gpu.energy_j, gpu.read_limits):
                    read()
            except GpuError as error:
                log.error("%s", error)

    @property
    def _incomplete(self) -> bool:
        known = {gpu.uuid for gpu in self._gpus}
        return not known or bool(self._unread) or not set(self._left_locked()) <= known

    def _look(self) -> None:
        with self._looking:
            self._look_now()

    def _look_now(self) -> None:
        known = {gpu.uuid for gpu in self._gpus}
        try:
            found, unread = self._nvml.look()
        except GpuError as error:
            driver = self._driver.exists()
            self._tell(explain(error, self._left_locked(), driver_is_loaded=driver, retry_s=self._retry_s))
            return
        self._trouble = self._told = ""
        if self._unread != (told := tuple(unread)):
            self._unread = told
            for what in told:
                log.error("%s; this GPU is left alone until it can be read", what)
        by_uuid = {gpu.uuid: gpu for gpu in found}
        for gpu in self._gpus:
            if gpu.uuid in by_uuid or not unread:
                gpu.renew(by_uuid.get(gpu.uuid))
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
