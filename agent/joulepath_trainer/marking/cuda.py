"""Markers and times on the GPU's own clock, through the CUDA driver that the process has already loaded.

A *marker* is a stream memory operation: the GPU writes a sequence number into the shared page when its stream gets
there, beside the kernels, with no synchronisation. A *time stamp* is an event recorded at the same place. Both are
enqueued, and the host never waits for either.

The driver is never loaded, initialised or given a context by this module: where the training process has none, there
is none to find. Function names and meanings: CUDA Driver API, sections "Stream Memory Operations", "Event Management",
"Memory Management", "Context Management".

A training need not make its GPU the current one (`torch.cuda.set_device`), and none is in a thread that has just begun.
The default stream is that of the current context, and a new event belongs to it: so each call is made in the context of
the marked stream, which stands back when it is done.
"""

from __future__ import annotations

import ctypes
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["CudaError", "Driver", "StreamMarks"]

_NOT_READY: Final = 600
_ALREADY_REGISTERED: Final = 712
_PORTABLE_DEVICE_MAP: Final = 0x01 | 0x02
_REGISTERED_BYTES: Final = 4096
_Pointer: Final = ctypes.c_void_p
_Value: Final = ctypes.POINTER


class CudaError(RuntimeError):
    """A function of the driver failed; the text has its name and the code of the result (`CUresult`)."""


class Driver:
    """The functions of the loaded driver library that the trainer needs. For one thread at a time.

    Those that never wait keep the interpreter's lock: to give it away and wait for it again takes longer than they do.

    Raises:
        CudaError: A function failed.
    """

    def __init__(self, library: ctypes.CDLL, at_once: ctypes.PyDLL) -> None:
        """The same library twice: with the interpreter's lock given away during a call, and kept."""

        def function(name: str, *argument_types: Any, of: ctypes.CDLL = library) -> Callable[..., int]:
            found = getattr(of, name)
            found.argtypes, found.restype = argument_types, ctypes.c_int
            return found  # type: ignore[no-any-return]

        pointer_out, uint_out = _Value(_Pointer), _Value(ctypes.c_uint64)
        self._ctx_get_current = function("cuCtxGetCurrent", pointer_out, of=at_once)
        self._ctx_push = function("cuCtxPushCurrent_v2", _Pointer, of=at_once)
        self._ctx_pop = function("cuCtxPopCurrent_v2", pointer_out, of=at_once)
        self._ctx_get_device = function("cuCtxGetDevice", _Value(ctypes.c_int))
        self._device_get = function("cuDeviceGet", _Value(ctypes.c_int), ctypes.c_int)
        self._primary_state = function(
            "cuDevicePrimaryCtxGetState", ctypes.c_int, _Value(ctypes.c_uint), _Value(ctypes.c_int)
        )
        self._primary_retain = function("cuDevicePrimaryCtxRetain", pointer_out, ctypes.c_int)
        self._primary_release = function("cuDevicePrimaryCtxRelease_v2", ctypes.c_int)
        self._device_uuid = function("cuDeviceGetUuid_v2", _Value(ctypes.c_ubyte * 16), ctypes.c_int)
        self._register = function("cuMemHostRegister_v2", _Pointer, ctypes.c_size_t, ctypes.c_uint)
        self._device_pointer = function("cuMemHostGetDevicePointer_v2", uint_out, _Pointer, ctypes.c_uint)
        # A driver without it (before CUDA 10) has no graphs to capture.
        self._is_capturing = (
            function("cuStreamIsCapturing", _Pointer, _Value(ctypes.c_int), of=at_once)
            if hasattr(library, "cuStreamIsCapturing")
            else None
        )
        self._event_create = function("cuEventCreate", pointer_out, ctypes.c_uint)
        self._event_query = function("cuEventQuery", _Pointer, of=at_once)
        self._event_elapsed = function("cuEventElapsedTime", _Value(ctypes.c_float), _Pointer, _Pointer, of=at_once)
        self._event_record = function("cuEventRecord", _Pointer, _Pointer)
        # Made once: these are filled some hundred times a step.
        self._current = _Pointer()
        self._current_out = ctypes.byref(self._current)
        self._status, self._milliseconds = ctypes.c_int(), ctypes.c_float()
        self._status_out, self._milliseconds_out = ctypes.byref(self._status), ctypes.byref(self._milliseconds)
        self._write = function("cuStreamWriteValue32_v2", _Pointer, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint)

    @classmethod
    def loaded(cls) -> Driver | None:
        """The driver, if this process has loaded it; None otherwise."""
        mode = os.RTLD_NOLOAD | os.RTLD_NOW
        try:
            return cls(ctypes.CDLL("libcuda.so.1", mode=mode), ctypes.PyDLL("libcuda.so.1", mode=mode))
        except OSError:
            return None

    @classmethod
    def in_use(cls) -> Driver | None:
        """The same, if this thread has a context as well."""
        driver = cls.loaded()
        return driver if driver is not None and driver.current_context() else None

    def current_context(self) -> int:
        """Of this thread; 0 if it has none."""
        return 0 if self._ctx_get_current(self._current_out) else self._current.value or 0

    def context_of(self, ordinal: int) -> int:
        """The context that all libraries of this process share on the GPU of this number; 0 where there is none yet.

        Only to retain it tells which it is: that is taken back at once, and whoever made it keeps it.
        """
        device, flags, active, context = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int(), _Pointer()
        _check("cuDeviceGet", self._device_get(ctypes.byref(device), ordinal))
        state = self._primary_state(device, ctypes.byref(flags), ctypes.byref(active))
        if not (_check("cuDevicePrimaryCtxGetState", state) and active.value):
            return 0
        _check("cuDevicePrimaryCtxRetain", self._primary_retain(ctypes.byref(context), device))
        _check("cuDevicePrimaryCtxRelease_v2", self._primary_release(device))
        return context.value or 0

    @contextmanager
    def within(self, context: int) -> Iterator[None]:
        """Makes a context this thread's, as long as it lasts."""
        if self.current_context() == context:
            yield
            return
        _check("cuCtxPushCurrent", self._ctx_push(context))
        try:
            yield
        finally:
            _check("cuCtxPopCurrent", self._ctx_pop(ctypes.byref(_Pointer())))

    def current_gpu(self) -> str:
        """UUID of the current context's GPU, as NVML writes it."""
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        _check("cuCtxGetDevice", self._ctx_get_device(ctypes.byref(device)))
        _check("cuDeviceGetUuid_v2", self._device_uuid(ctypes.byref(raw), device.value))
        return f"GPU-{uuid.UUID(bytes=bytes(raw))}"

    def map_host_page(self, address: int) -> int:
        """Lets the GPU write the page of host memory at the address; returns the address that the GPU has for it.

        Another GPU of this process may have been let before: registered is registered for all.
        """
        registered = self._register(address, _REGISTERED_BYTES, _PORTABLE_DEVICE_MAP)
        _check("cuMemHostRegister_v2", 0 if registered == _ALREADY_REGISTERED else registered)
        on_device = ctypes.c_uint64()
        _check("cuMemHostGetDevicePointer_v2", self._device_pointer(ctypes.byref(on_device), address, 0))
        return on_device.value

    def capturing(self, stream: int) -> bool:
        """Whether the stream records a CUDA graph: what is enqueued then is not run now (nor may be, on some)."""
        if self._is_capturing is None:
            return False
        return self._is_capturing(stream, self._status_out) != 0 or self._status.value != 0

    def create_event(self) -> int:
        """A new event, with a time."""
        event = _Pointer()
        _check("cuEventCreate", self._event_create(ctypes.byref(event), 0))
        return event.value or 0

    def record_event(self, event: int, stream: int) -> None:
        """Enqueues the event on the stream."""
        _check("cuEventRecord", self._event_record(event, stream))

    def event_passed(self, event: int) -> bool:
        """Whether the GPU has passed the event; doesn't wait."""
        result = self._event_query(event)
        return result != _NOT_READY and _check("cuEventQuery", result)

    def seconds_between(self, begin: int, end: int) -> float:
        """Seconds on the GPU's clock between two events that it has passed; resolution about 0.5 us."""
        _check("cuEventElapsedTime", self._event_elapsed(self._milliseconds_out, begin, end))
        return self._milliseconds.value / 1e3

    def write_word(self, stream: int, on_device: int, value: int) -> None:
        """Enqueues the write of a 32-bit word, ordered after the memory operations before it."""
        _check("cuStreamWriteValue32_v2", self._write(stream, on_device, value, 0))


class StreamMarks:
    """Markers written, and times taken, by the GPU's stream."""

    def __init__(
        self,
        driver: Driver,
        current_stream: Callable[[], int],
        page_address: int,
        marker_offset: int,
        context: int | None = None,
    ) -> None:
        """`context` is that of the stream; this thread's unless told."""
        self._driver = driver
        self._current_stream = current_stream
        self._context = driver.current_context() if context is None else context
        with driver.within(self._context):
            self._marker = driver.map_host_page(page_address) + marker_offset
        self._free: list[int] = []

    def place(self) -> int | None:
        """The stream on which a marker can be enqueued now; None while a CUDA graph is captured."""
        stream = self._current_stream()
        with self._driver.within(self._context):
            return None if self._driver.capturing(stream) else stream

    def stamp(self, place: int, sequence: int) -> int:
        """Enqueues the marker of this number; returns its time stamp."""
        with self._driver.within(self._context):
            event = self._free.pop() if self._free else self._driver.create_event()
            self._driver.record_event(event, place)
            self._driver.write_word(place, self._marker, sequence)
        return event

    def passed(self, stamp: int) -> bool:
        """Whether the GPU has passed it."""
        with self._driver.within(self._context):
            return self._driver.event_passed(stamp)

    def seconds(self, begin: int, end: int) -> float:
        """Seconds between two stamps that were passed."""
        with self._driver.within(self._context):
            return self._driver.seconds_between(begin, end)

    def recycle(self, stamps: Iterable[int]) -> None:
        """Takes back stamps that nobody asks for any more."""
        self._free.extend(stamps)


def _check(name: str, result: int) -> bool:
    if result:
        raise CudaError(f"{name} returned {result}")
    return True
