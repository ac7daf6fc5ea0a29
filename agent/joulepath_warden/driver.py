"""NVML, as far as a reset needs it. Its calls may come from any thread, and may hang."""

from __future__ import annotations

import threading

import pynvml

from joulepath_warden.clocks import ClockRange

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
        self._opening = threading.Lock()
        self._opened = False

    def gpus(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """UUIDs of the GPUs that there are, and what is wrong with those that can't be read.

        Raises:
            DriverError: NVML can't be used.
        """
        self._open()
        found, unread = set(), []
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            raise self._failure("NVML can't count the GPUs", error) from None
        for index in range(count):
            try:
                found.add(str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))))
            except pynvml.NVMLError as error:
                unread.append(str(self._failure(f"GPU {index} can't be read", error)))
        return frozenset(found), tuple(unread)

    def reset(self, uuid: str) -> None:
        """Back to default clocks: those of the site if it declared some, else no lock.

        Raises:
            DriverError: The clock may still be locked.
        """
        self._open()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            if self._site_range is None:
                pynvml.nvmlDeviceResetGpuLockedClocks(handle)
            else:
                pynvml.nvmlDeviceSetGpuLockedClocks(handle, self._site_range.low_mhz, self._site_range.high_mhz)
        except pynvml.NVMLError_NotSupported:
            return  # where clocks can't be locked, none is
        except pynvml.NVMLError_NotFound:
            raise AbsentError(f"NVML shows no {uuid}") from None
        except pynvml.NVMLError_NoPermission:
            raise DriverError(f"reset of {uuid}: NVML gives no permission: give CAP_SYS_ADMIN") from None
        except pynvml.NVMLError as error:
            raise self._failure(f"reset of {uuid}", error) from None

    def _open(self) -> None:
        with self._opening:
            if self._opened:
                return
            try:
                pynvml.nvmlInit()
            except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
                raise AbsentError(f"there is no NVML library or no driver ({error})") from None
            except pynvml.NVMLError as error:
                raise DriverError(f"NVML can't be used: {error}") from None
            self._opened = True

    def _failure(self, what: str, error: pynvml.NVMLError) -> DriverError:
        if isinstance(error, pynvml.NVMLError_Uninitialized):
            self._opened = False
        return DriverError(f"{what}: NVML says {error}")
