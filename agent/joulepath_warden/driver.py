"""NVML, as far as a reset needs it. Its calls may come from any thread, and may hang."""

from __future__ import annotations

import pynvml

from joulepath_warden.clocks import ClockRange
from joulepath_warden.session import Session

__all__ = ["AbsentError", "Driver", "DriverError"]


class DriverError(RuntimeError):
    """NVML refused or failed; it may be asked again."""


class AbsentError(DriverError):
    """There is no such GPU, or no NVML or driver at all: asking again helps only once the node has changed."""


class Driver:
    """The GPUs of the node."""

    def __init__(self, site_range: ClockRange | None) -> None:
        """`site_range` is what a reset restores, where the site locks clocks itself."""
        self._site_range = site_range
        self._session = Session()

    @property
    def is_open(self) -> bool:
        """Whether the driver's devices are open for it."""
        return self._session.number > 0

    def open(self) -> None:
        """Opens NVML, so that a reset that comes doesn't wait for that.

        Raises:
            DriverError: NVML can't be used.
        """
        try:
            self._session.open()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            raise AbsentError(f"there is no NVML library or no driver ({error})") from None
        except pynvml.NVMLError as error:
            raise DriverError(f"NVML can't be used: {error}") from None

    def let_go(self) -> bool:
        """Closes the driver's devices unless a call is under way; whether they are closed."""
        return self._session.let_go()

    def gpus(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """UUIDs of the GPUs that there are, and what is wrong with those that can't be read.

        Raises:
            DriverError: NVML can't be used.
        """
        self.open()
        found, unread = set(), []
        try:
            with self._session:
                for index in range(int(pynvml.nvmlDeviceGetCount())):
                    try:
                        found.add(str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))))
                    except pynvml.NVMLError as error:
                        unread.append(f"GPU {index} can't be read: NVML says {error}")
        except pynvml.NVMLError as error:
            raise DriverError(f"NVML can't count the GPUs: NVML says {error}") from None
        return frozenset(found), tuple(unread)

    def reset(self, uuid: str) -> None:
        """Back to default clocks: those of the site if it declared some, else no lock.

        Raises:
            DriverError: The clock may still be locked.
        """
        self.open()
        try:
            with self._session:
                self._reset(pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError_NotSupported:
            return  # where clocks can't be locked, none is
        except pynvml.NVMLError_NotFound:
            raise AbsentError(f"NVML shows no {uuid}") from None
        except pynvml.NVMLError_NoPermission:
            raise DriverError(f"reset of {uuid}: NVML gives no permission: give CAP_SYS_ADMIN") from None
        except pynvml.NVMLError as error:
            raise DriverError(f"reset of {uuid}: NVML says {error}") from None

    def _reset(self, handle: object) -> None:
        if self._site_range is None:
            pynvml.nvmlDeviceResetGpuLockedClocks(handle)
        else:
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, self._site_range.low_mhz, self._site_range.high_mhz)
