"""The shared file of one node's virtual GPUs: laid from a model and how unkind the GPUs are to be; looked into.

Everything in time is multiplied by the time scale here, once, so that nothing behind the file knows of it.
The ctypes structures mirror c/node.h and c/control.c; their sizes are compared when the library is loaded.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import uuid
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from virtual_gpus.build import library_dir
from virtual_gpus.model import Kernel, Model

__all__ = [
    "DEFAULT_STATE",
    "GpuState",
    "HangingCall",
    "Options",
    "Order",
    "break_gpu",
    "create",
    "gpu_uuids",
    "kernel_id",
    "look",
    "minors",
    "orders",
    "uuids",
]

DEFAULT_STATE: Final = Path("/run/virtual-gpus/state")
_MAX_GPUS: Final = 16
_MAX_CLOCKS: Final = 128
_MAX_ORDERS: Final = 4096
_NAME: Final = 64
_UUIDS: Final = uuid.UUID("5f1f8f0a-6d0e-4b54-9a0f-0b6d3a1c77a1")
_HANGING: Final = {"set": 1, "reset": 2, "read": 4}
_ByClock = ctypes.c_double * _MAX_CLOCKS
_ByGpu = ctypes.c_double * _MAX_GPUS

HangingCall = Literal["set", "reset", "read"]


@dataclass(frozen=True, slots=True)
class Options:
    """How many GPUs, which ones, and how unkind. Milliseconds are at time scale 1; shares are fractions.

    lag_ms is the mean over targets and directions: going down takes 5% more, up 5% less, each target differs by up
    to lag_target_spread, each call by up to lag_spread. For targets in the range slow_targets (MHz, "900-1100") the
    mean is slow_lag_ms. Once a change is in force, its kernel stands still for pause_ms. power_variation and
    time_variation are between GPUs (up to so much), time_noise and energy_noise from kernel to kernel (standard
    deviation).
    """

    gpus: int = 4
    node: str = "node"
    seed: int = 0
    time_scale: float = 1.0
    lag_ms: float = 10.0
    lag_spread: float = 0.2
    lag_target_spread: float = 0.1
    slow_targets: str = ""
    slow_lag_ms: float = 60.0
    block_ms: float = 0.3
    pause_ms: float = 0.0
    counter_period_ms: float = 100.0
    power_variation: float = 0.03
    time_variation: float = 0.0
    time_noise: float = 0.002
    energy_noise: float = 0.0
    root_only: bool = True
    minors: str = ""
    mig: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= _MAX_GPUS:
            raise ValueError(f"gpus is {self.gpus}: a node has 1 to {_MAX_GPUS}")
        if self.time_scale <= 0:
            raise ValueError(f"time_scale is {self.time_scale}: use a number over 0, 1 for real time")
        if self.counter_period_ms <= 0:
            raise ValueError(f"counter_period_ms is {self.counter_period_ms}: use a number over 0")
        if self.minors and len(set(_numbers(self.minors))) != self.gpus:
            raise ValueError(f"minors is {self.minors}: name a number of its own for each of {self.gpus} GPUs")


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU as it is now, exactly: what NVML shows only coarsely or not at all. Clocks in MHz, 0 = default.

    The energy is the integral up to `now_ns`; `kernels` counts starts; `lock_*` is the range in force, `next_*` the one
    that will be once the `pending` changes are; the last of them gets (or got) into force at `change_ns`. Moments are
    CLOCK_MONOTONIC, as time.monotonic_ns().
    """

    energy_j: float
    busy_s: float
    power_w: float
    temperature_c: float
    power_limit_w: float
    kernels: int
    sets: int
    resets: int
    now_ns: int
    change_ns: int
    clock_mhz: int
    lock_low_mhz: int
    lock_high_mhz: int
    pending: int
    owners: int
    running: bool
    next_low_mhz: int
    next_high_mhz: int


@dataclass(frozen=True, slots=True)
class Order:
    """A call that set or reset a GPU's clock and that the driver took. Clocks in MHz, 0 = default."""

    number: int
    """Counted for each GPU from 0."""
    called_ns: int
    taken_ns: int
    """Later where the call hung."""
    low_mhz: int
    high_mhz: int


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("size", "gpu_count", "kernel_count")),
        *((name, ctypes.c_uint32) for name in ("clock_count", "clock_min_mhz", "clock_step_mhz", "memory_clock_mhz")),
        *((name, ctypes.c_uint32) for name in ("root_only", "enforce_cap")),
        ("gpu_name", ctypes.c_char * _NAME),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_double) for name in ("block_s", "pause_s", "counter_period_s", "lag_spread")),
        *((name, ctypes.c_double) for name in ("time_noise", "energy_noise", "idle_w", "power_limit_w")),
        *((name, ctypes.c_double) for name in ("leak_per_k", "reference_c", "ambient_c", "kelvin_per_w", "heat_tau_s")),
        ("static_w", _ByClock),
        ("blocking_w", _ByClock),
        ("lag_s", _ByClock * 2),
        ("gpu_power", _ByGpu),
        ("gpu_time", _ByGpu),
        ("uuid", (ctypes.c_uint8 * 16) * _MAX_GPUS),
        ("minor", ctypes.c_uint8 * _MAX_GPUS),
        ("mig", ctypes.c_uint8 * _MAX_GPUS),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_char * (_NAME - 4)),
        ("time_s", _ByClock),
        ("power_w", _ByClock),
    ]


class _Look(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_double) for name in ("energy_j", "busy_s", "power_w", "temperature_c", "power_limit_w")),
        *((name, ctypes.c_uint64) for name in ("kernels", "sets", "resets")),
        *((name, ctypes.c_int64) for name in ("now_ns", "change_ns")),
        *((name, ctypes.c_uint32) for name in ("clock_mhz", "lock_low_mhz", "lock_high_mhz", "pending")),
        *((name, ctypes.c_uint32) for name in ("owners", "running", "next_low_mhz", "next_high_mhz")),
    ]


class _Order(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("called_ns", "taken_ns")),
        *((name, ctypes.c_uint32) for name in ("low_mhz", "high_mhz")),
    ]


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_dir() / "libvirtual-gpus.so"))
    sizes = (ctypes.c_uint32 * 4)()
    library.virtual_gpus_sizes(sizes)
    mirrored = [ctypes.sizeof(t) for t in (_Config, _Kernel, _Look, _Order)]
    if list(sizes) != mirrored:
        raise RuntimeError(f"state.py mirrors structs of {mirrored} bytes, node.h has {list(sizes)}: make them equal")
    return library


def _check(error: int, path: Path) -> None:
    if error:
        raise OSError(error, os.strerror(error), str(path))


def kernel_id(name: str) -> int:
    """By what number the libraries know a kernel."""
    return zlib.crc32(name.encode())


def gpu_uuids(node: str, gpus: int) -> list[uuid.UUID]:
    """The identities of a node's GPUs: they follow from the node's name."""
    return [uuid.uuid5(_UUIDS, f"{node}/{i}") for i in range(gpus)]


def create(path: Path, model: Model, options: Options) -> None:
    """Lay the file of a node's GPUs, at once whole. What already runs on an older file keeps that one.

    Raises:
        OSError: It cannot be written.
        ValueError: The model is larger than the file's tables.
    """
    config = _config(model, options)
    kernels = (_Kernel * len(model.kernels))(*(_kernel(k, options.time_scale) for k in model.kernels))
    path.parent.mkdir(parents=True, exist_ok=True)
    _check(_library().virtual_gpus_create(str(path).encode(), ctypes.byref(config), kernels), path)


def _kernel(kernel: Kernel, scale: float) -> _Kernel:
    times = _ByClock(*(t * scale for t in kernel.time_s))
    return _Kernel(kernel_id(kernel.name), kernel.name.encode(), times, _ByClock(*kernel.power_w))


def _config(model: Model, o: Options) -> _Config:
    chance = random.Random(f"{o.seed}/{o.node}")
    clocks = model.clocks
    count = len(clocks.all_mhz)

    low_mhz, high_mhz = map(int, o.slow_targets.split("-")) if o.slow_targets else (0, 0)

    def lags(factor: float) -> ctypes.Array[ctypes.c_double]:
        means_ms = (o.slow_lag_ms if low_mhz <= clock <= high_mhz else o.lag_ms for clock in clocks.all_mhz)
        return _ByClock(
            *(
                mean_ms / 1e3 * o.time_scale * factor * (1 + chance.uniform(-1, 1) * o.lag_target_spread)
                for mean_ms in means_ms
            )
        )

    def differing(share: float) -> ctypes.Array[ctypes.c_double]:
        return _ByGpu(*(1 + chance.uniform(-share, share) for _ in range(o.gpus)))

    config = _Config(
        size=ctypes.sizeof(_Config),
        gpu_count=o.gpus,
        kernel_count=len(model.kernels),
        clock_count=count,
        clock_min_mhz=clocks.min_mhz,
        clock_step_mhz=clocks.step_mhz,
        memory_clock_mhz=clocks.memory_mhz,
        root_only=o.root_only,
        enforce_cap=model.enforce_cap,
        gpu_name=model.gpu_name.encode(),
        seed=o.seed,
        block_s=o.block_ms / 1e3 * o.time_scale,
        pause_s=o.pause_ms / 1e3 * o.time_scale,
        counter_period_s=o.counter_period_ms / 1e3 * o.time_scale,
        lag_spread=o.lag_spread,
        time_noise=o.time_noise,
        energy_noise=o.energy_noise,
        idle_w=model.idle_w,
        power_limit_w=model.power_limit_w,
        leak_per_k=model.heat.leak_per_k,
        reference_c=model.heat.reference_c,
        ambient_c=model.heat.ambient_c,
        kelvin_per_w=model.heat.kelvin_per_w,
        heat_tau_s=model.heat.tau_s * o.time_scale,
        static_w=_ByClock(*model.static_w),
        blocking_w=_ByClock(*model.blocking_w),
        lag_s=(_ByClock * 2)(lags(1.05), lags(0.95)),
        gpu_power=differing(o.power_variation),
        gpu_time=differing(o.time_variation),
    )
    minors = _numbers(o.minors) or range(o.gpus)
    for i, (identity, minor) in enumerate(zip(gpu_uuids(o.node, o.gpus), minors, strict=True)):
        config.uuid[i][:] = identity.bytes
        config.minor[i] = minor
    for i in _numbers(o.mig):
        config.mig[i] = 1
    return config


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")] if text else []


def look(path: Path, gpu: int) -> GpuState:
    """GPU number `gpu` of the node as it is now.

    Raises:
        OSError: There is no such GPU or file.
    """
    seen = _Look()
    _check(_library().virtual_gpus_look(str(path).encode(), gpu, ctypes.byref(seen)), path)
    values = {f.name: getattr(seen, f.name) for f in dataclasses.fields(GpuState)}
    return GpuState(**{**values, "running": bool(seen.running)})


def orders(path: Path, gpu: int, first: int = 0) -> tuple[Order, ...]:
    """All orders of a GPU's clock from number `first` on, oldest first, as far as they are kept: the last 4096.

    Raises:
        OSError: There is no such GPU or file.
    """
    number, count, kept = ctypes.c_uint64(first), ctypes.c_uint32(_MAX_ORDERS), (_Order * _MAX_ORDERS)()
    found = _library().virtual_gpus_orders(
        str(path).encode(), gpu, ctypes.byref(number), ctypes.byref(kept), ctypes.byref(count)
    )
    _check(found, path)
    return tuple(
        Order(number.value + at, one.called_ns, one.taken_ns, one.low_mhz, one.high_mhz)
        for at, one in enumerate(kept[: count.value])
    )


def uuids(path: Path) -> list[str]:
    """The GPUs of a file as NVML names them, `GPU-...`, in the order of their numbers."""
    config = _read_config(path)
    return [f"GPU-{uuid.UUID(bytes=bytes(config.uuid[i]))}" for i in range(config.gpu_count)]


def minors(path: Path) -> list[int]:
    """Their minor numbers, in the same order."""
    config = _read_config(path)
    return list(config.minor[: config.gpu_count])


def _read_config(path: Path) -> _Config:
    config = _Config()
    _check(_library().virtual_gpus_config(str(path).encode(), ctypes.byref(config)), path)
    return config


def break_gpu(
    path: Path,
    gpu: int,
    *,
    lost: bool = False,
    set_error: int = 0,
    hang: Collection[HangingCall] = (),
    slower: float = 0.0,
) -> None:
    """Let a GPU fall off the bus, its clock-setting calls fail with an NVML error, calls hang, or kernels that begin
    from now on take longer by a share, as heat has them; without all: mend it.

    Calls that hang return, with what they were called for, once the GPU is told otherwise.
    """
    hanging = sum(_HANGING[call] for call in set(hang))
    found = _library().virtual_gpus_break(
        str(path).encode(), gpu, int(lost), set_error, hanging, ctypes.c_double(slower)
    )
    _check(found, path)
