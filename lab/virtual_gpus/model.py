"""What a kernel costs: seconds and watts of every (stage, kind) at every clock that the GPU has.

Two models. `replay` plays back a published profile, its noise and its points over the power limit included; what
lies under the lowest measured clock is a physical curve through it. `parametric` computes all from a handful of
numbers, so that stages can be made as even or uneven as a test wants. Nothing here knows of time scales, lags or
differences between GPUs: see state.py.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["A100_CLOCKS", "Clocks", "Heat", "Kernel", "Model", "parametric", "replay"]

_KINDS: Final = {"forward": "F", "backward": "B"}
_FIT_POINTS: Final = 8


@dataclass(frozen=True, slots=True)
class Clocks:
    """The SM clocks of a GPU and its memory clock, in MHz."""

    min_mhz: int
    max_mhz: int
    step_mhz: int
    memory_mhz: int

    @property
    def all_mhz(self) -> tuple[int, ...]:
        """Every supported SM clock, lowest first."""
        return tuple(range(self.min_mhz, self.max_mhz + 1, self.step_mhz))


A100_CLOCKS: Final = Clocks(min_mhz=210, max_mhz=1410, step_mhz=15, memory_mhz=1593)


@dataclass(frozen=True, slots=True)
class Heat:
    """A first-order body: it settles at ambient + kelvin_per_w x power, with time constant tau.

    `leak_per_k` is the share by which static power grows per kelvin over `reference_c`.
    """

    ambient_c: float = 28.0
    kelvin_per_w: float = 0.085
    tau_s: float = 8.0
    reference_c: float = 45.0
    leak_per_k: float = 0.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """Seconds and watts of one (stage, kind) at each clock of the model, lowest clock first."""

    name: str
    time_s: tuple[float, ...]
    power_w: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A GPU and the kernels it can run. Tuples by clock follow `clocks.all_mhz`."""

    clocks: Clocks
    kernels: tuple[Kernel, ...]
    static_w: tuple[float, ...]
    blocking_w: tuple[float, ...]
    idle_w: float
    power_limit_w: float
    enforce_cap: bool
    heat: Heat = field(default_factory=Heat)
    gpu_name: str = "NVIDIA A100-SXM4-80GB"

    def kernel(self, stage: int, kind: str) -> Kernel:
        """The kernel of a stage; KeyError if the model has none."""
        for kernel in self.kernels:
            if kernel.name == f"{stage}/{kind}":
                return kernel
        raise KeyError(f"{stage}/{kind}")


def _blocking_w(clock_mhz: int, clocks: Clocks) -> float:
    """Watts of a waiting A100: 83.64 W at its top clock as published, and our guess that 60 W of it don't scale."""
    return 60.0 + 23.64 * clock_mhz / clocks.max_mhz


def replay(profile: Path) -> Model:
    """The published profile `stage,instruction,frequency,time,energy` (MHz, s, J), played back as it is.

    Watts are energy / time. Points over the 400 W limit are played back too: nothing is capped. Clocks under the
    lowest measured one follow `time = a/f + b` and `power = c f + d`, fitted to the eight lowest points and made to
    meet the lowest. Besides F and B, each stage has I and W, half a B each: an assumption, nobody published them.

    Raises:
        ValueError: A (stage, instruction) misses a clock between its lowest and the GPU's highest.
    """
    clocks = A100_CLOCKS
    points: dict[str, dict[int, tuple[float, float]]] = {}
    with profile.open(newline="") as lines:
        for row in csv.DictReader(lines):
            seconds, joules = float(row["time"]), float(row["energy"])
            name = f"{int(row['stage'])}/{_KINDS[row['instruction']]}"
            points.setdefault(name, {})[int(row["frequency"])] = seconds, joules / seconds
    kernels = [_extrapolated(name, measured, clocks) for name, measured in points.items()]
    halves = [
        Kernel(f"{k.name[:-1]}{kind}", tuple(t / 2 for t in k.time_s), k.power_w)
        for k in kernels
        if k.name.endswith("/B")
        for kind in "IW"
    ]
    return Model(
        clocks=clocks,
        kernels=(*kernels, *halves),
        static_w=(0.0,) * len(clocks.all_mhz),
        blocking_w=tuple(_blocking_w(f, clocks) for f in clocks.all_mhz),
        idle_w=55.0,
        power_limit_w=400.0,
        enforce_cap=False,
    )


def _extrapolated(name: str, measured: Mapping[int, tuple[float, float]], clocks: Clocks) -> Kernel:
    lowest = min(measured)
    missing = [f for f in clocks.all_mhz if f >= lowest and f not in measured]
    if missing:
        raise ValueError(f"profile of {name} has no point at {missing[0]} MHz: add it, or use another profile")
    fitted = sorted(measured)[:_FIT_POINTS]
    time_slope = _slope([1 / f for f in fitted], [measured[f][0] for f in fitted])
    power_slope = _slope(fitted, [measured[f][1] for f in fitted])
    time_s, power_w = [], []
    for f in clocks.all_mhz:
        seconds, watts = measured.get(f) or (
            measured[lowest][0] + time_slope * (1 / f - 1 / lowest),
            max(measured[lowest][1] + power_slope * (f - lowest), _blocking_w(f, clocks)),
        )
        time_s.append(seconds)
        power_w.append(watts)
    return Kernel(name, tuple(time_s), tuple(power_w))


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line."""
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


@dataclass(frozen=True, slots=True)
class _Spec:
    """The numbers of the parametric model: what each means and what it is when a spec is silent."""

    stage_scale: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # length of each stage's kernels
    seconds: Mapping[str, float] = field(default_factory=lambda: {"F": 0.05, "B": 0.1, "I": 0.05, "W": 0.05})
    compute_share: float = 0.85  # of a kernel's time at the top clock; the rest is memory and ignores the clock
    static_w: float = 60.0  # leaks, whatever the clock
    dynamic_w: float = 320.0  # of a kernel at the top clock, over static
    waiting_share: float = 0.074  # of dynamic_w, while a process waits
    idle_w: float = 55.0
    floor_mhz: float = 1050.0  # under this clock the voltage does not fall
    floor_voltage: float = 0.72  # there, as a share of the voltage at the top clock
    power_cap_w: float = 400.0
    leak_per_k: float = 0.004


def parametric(spec: Mapping[str, Any]) -> Model:
    """A model from a few numbers; `spec` overrides the defaults of `_Spec`, by name.

    time(f) = seconds x stage_scale x (compute_share x fmax/f + 1 - compute_share)
    power(f) = static + dynamic x f/fmax x V(f)^2, with V on a floor up to floor_mhz and linear from there to 1;
    the static part grows with heat, and over power_cap_w the clock falls.

    Raises:
        ValueError: A name is unknown.
    """
    known = set(_Spec.__dataclass_fields__)
    if unknown := sorted(set(spec) - known):
        raise ValueError(f"the parametric model knows no {unknown[0]!r}: use one of {', '.join(sorted(known))}")
    s = _Spec(**spec)
    if not 0 <= s.compute_share <= 1:
        raise ValueError(f"compute_share is {s.compute_share}: it is a share, so put it between 0 and 1")
    clocks = A100_CLOCKS
    top = clocks.max_mhz

    def switching(f: int) -> float:
        slope = (1 - s.floor_voltage) / (top - s.floor_mhz)
        return f / top * (s.floor_voltage + max(0.0, f - s.floor_mhz) * slope) ** 2

    power_w = tuple(s.static_w + s.dynamic_w * switching(f) for f in clocks.all_mhz)
    shape = tuple(s.compute_share * top / f + 1 - s.compute_share for f in clocks.all_mhz)
    kernels = tuple(
        Kernel(f"{stage}/{kind}", tuple(seconds * scale * x for x in shape), power_w)
        for stage, scale in enumerate(s.stage_scale)
        for kind, seconds in s.seconds.items()
    )
    return Model(
        clocks=clocks,
        kernels=kernels,
        static_w=(s.static_w,) * len(clocks.all_mhz),
        blocking_w=tuple(s.static_w + s.waiting_share * s.dynamic_w * switching(f) for f in clocks.all_mhz),
        idle_w=s.idle_w,
        power_limit_w=s.power_cap_w,
        enforce_cap=True,
        heat=Heat(leak_per_k=s.leak_per_k),
    )
