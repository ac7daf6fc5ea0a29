"""What a training script does with a virtual GPU: launch a stage's work on its stream, and wait for it.

Standard library only. A launch returns at once and the stream runs it later, as with CUDA; torch, which cannot
know of these GPUs, moves the tensors on the CPU. So that data do not leave before the work that made them is done,
`attach_to_torch_distributed` makes torch's point-to-point sends wait for the stream, as they wait with CUDA tensors.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from typing import Any

__all__ = ["CudaError", "attach_to_torch_distributed", "launch", "set_device", "synchronize"]


class CudaError(RuntimeError):
    """A call of the driver API failed; `code` is the CUresult."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with CUDA error {code}")
        self.code = code


@functools.cache
def _driver() -> ctypes.CDLL:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.virtualGpuLaunch.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    driver.cuStreamSynchronize.argtypes = [ctypes.c_void_p]
    return driver


@functools.cache
def _context(ordinal: int) -> ctypes.c_void_p:
    context = ctypes.c_void_p()
    _call("cuInit", 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
    return context


@functools.cache
def _kernel(stage: int, kind: str) -> int:
    return zlib.crc32(f"{stage}/{kind}".encode())


def _call(name: str, *arguments: Any) -> None:
    if code := getattr(_driver(), name)(*arguments):
        raise CudaError(name, code)


def set_device(ordinal: int) -> None:
    """Make GPU `ordinal` of those visible the current one of this thread, as torch.cuda.set_device does."""
    _call("cuCtxSetCurrent", _context(ordinal))


def _default_device() -> None:
    """As the CUDA runtime: a thread that has chosen none uses GPU 0."""
    context = ctypes.c_void_p()
    if _driver().cuCtxGetCurrent(ctypes.byref(context)) or not context:
        set_device(0)


def launch(stage: int, kind: str) -> None:
    """Queue one instruction of a stage (F, B, I, W, ...) on the current GPU's default stream; returns at once.

    Raises:
        CudaError: 500, the GPU's model has no such instruction.
    """
    _default_device()
    _call("virtualGpuLaunch", None, _kernel(stage, kind))


def synchronize() -> None:
    """Wait until the default stream of the current GPU has done all that was queued."""
    _default_device()
    _call("cuStreamSynchronize", None)


def attach_to_torch_distributed() -> None:
    """Let every point-to-point send of torch.distributed wait for the stream first. Calling it again is harmless.

    `send`, `isend` and `batch_isend_irecv` all end in ProcessGroup.send, so that is the place.
    """
    from torch.distributed import ProcessGroup

    original = ProcessGroup.send
    if getattr(original, "waits_for_stream", False):
        return

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        synchronize()
        return original(*args, **kwargs)

    send.waits_for_stream = True  # type: ignore[attr-defined]
    ProcessGroup.send = send
