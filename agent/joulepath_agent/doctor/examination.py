"""One GPU after all checks, in an order in which each has what it needs of those before it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from joulepath_agent.doctor import board, checks
from joulepath_agent.doctor.figures import Examined
from joulepath_agent.doctor.hold import Hold, NotMeasuredError, StoppedError
from joulepath_agent.doctor.load import Load, LoadError
from joulepath_clocks.gpus.nvml import GpuError

__all__ = ["Examination", "why_busy"]

log = logging.getLogger(__name__)

_READY_S: Final = 60.0
_SWITCHES_S: Final = 40.0


def why_busy(uuid: str, *, own: int = 0) -> str:
    """Why a GPU is left alone; empty where nobody computes on it but as many processes of the doctor's.

    Raises:
        GpuError: NVML doesn't tell.
    """
    processes = board.computing(uuid)
    if len(processes) <= own:
        return ""
    pids = ", ".join(map(str, processes[:4])) + (", ..." if len(processes) > 4 else "")
    return f"a process computes on it ({pids}, as the host numbers it): examine it when its job is over"


class Examination:
    """Of one GPU, by one thread."""

    def __init__(self, hold: Hold, command: Sequence[str]) -> None:
        """`command` is that of the load."""
        self.hold = hold
        self.found = Examined(hold.gpu.uuid, hold.gpu.model)
        self.load: Load | None = None
        self._command = command

    def run(self) -> None:
        """All checks, as far as they can be done; the clock is at default after it, whatever happens.

        Raises:
            StoppedError: It is to end.
        """
        try:
            self.check("load", self._start_load)
            self.check("permission", lambda: checks.permission(self.hold))
            for name, measure in (
                ("settled", lambda load: checks.settled(self.hold, load)),
                ("counter", lambda _: checks.counter(self.hold)),
                ("pairs", self._pairs),
                ("waiting", lambda load: checks.waiting(self.hold, load)),
                ("page", lambda load: checks.page(self.hold, load)),
                ("markers", checks.markers),
            ):
                self.check(name, lambda measure=measure: measure(self._loaded()))  # type: ignore[misc]
        finally:
            self.hold.close()

    def check(self, name: str, measure: Callable[[], Any]) -> None:
        """Does one check: its figure, or why there is none.

        Raises:
            StoppedError: It is to end.
        """
        try:
            with self.hold.calling() as gpu:
                busy = why_busy(gpu.uuid, own=int(self.load is not None))
            if busy:
                self.hold.stop(busy)
            self.hold.rest(0.0)
            figure = measure()
        except (NotMeasuredError, GpuError, LoadError) as error:
            self.note(name, str(error))
        except StoppedError as stopped:
            self.note("ended", str(stopped))
            raise
        except Exception as error:
            log.exception("the check %s of %s failed", name, self.hold.gpu.uuid)
            self.note(name, f"it failed: {type(error).__name__}: {error}")
        else:
            if name != "load":
                self.found = replace(self.found, **{name: figure})

    def close(self) -> None:
        """Ends the load."""
        if self.load is not None:
            self.load.close()
            self.load = None

    def note(self, name: str, why: str) -> None:
        """Says why a check has no figure; "ended" stands for all that are left."""
        self.found = replace(self.found, without={**self.found.without, name: why})

    def _start_load(self) -> None:
        self.load = Load(self._command, self.hold.gpu.uuid, _READY_S)

    def _loaded(self) -> Load:
        if self.load is None:
            raise NotMeasuredError(f"it needs load: {self.found.without.get('load', 'there is none')}")
        return self.load

    def _pairs(self, load: Load) -> Any:
        if self.found.permission is None or not self.found.permission.can_set:
            raise NotMeasuredError("clocks can't be set")
        return checks.switches(self.hold, load, _SWITCHES_S)
