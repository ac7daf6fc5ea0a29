"""What an examination measures, as values; a record of them is written as JSON. Seconds, MHz, W and J throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

__all__ = [
    "Collectives",
    "Counter",
    "Examined",
    "Killed",
    "Markers",
    "Page",
    "Pair",
    "Permission",
    "Settled",
    "Spread",
    "Waiting",
    "spread",
]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a sample of `n` values."""

    median: float
    p95: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median and 95th percentile.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("there are no values to tell a spread of")
    top = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return Spread(median(values), top, len(values))


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether clocks can be set: how long the calls blocked, or why not."""

    can_set: bool
    why: str = ""
    call_s: Spread | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Switches from one clock to another; 0 is default clocks."""

    from_mhz: int
    to_mhz: int
    up: bool
    settled_mhz: int
    """Where the clock settled, the median of the switches."""
    lags_s: tuple[float, ...]
    unseen: int
    """Switches that weren't seen sharply enough to count."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Default clocks under load."""

    clock_mhz: int
    low_mhz: int
    high_mhz: int
    """The 5th and 95th percentile of the looks."""
    highest_mhz: int
    """The highest clock that can be asked for."""
    power_w: float
    limit_w: float
    default_limit_w: float
    slowed_by: tuple[str, ...]
    load: str


@dataclass(frozen=True, slots=True)
class Counter:
    """The energy counter: seconds between two of its steps, its least step, seconds that a read takes."""

    period_s: Spread
    resolution_j: float
    read_s: Spread


@dataclass(frozen=True, slots=True)
class Waiting:
    """Watts of a GPU that waits for a peer, at one clock; 0 is default clocks."""

    clock_mhz: int
    power_w: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Page:
    """Stream memory operations on a page that another process maps."""

    seen: int
    of: int
    ordered: bool
    """Whether none was seen before the work enqueued ahead of it had ended."""
    latency_s: Spread | None
    """From the call that enqueues one on an idle stream to the other process seeing it."""


@dataclass(frozen=True, slots=True)
class Markers:
    """Host seconds of a marker's calls, and what a marker between two kernels costs the GPU."""

    record_s: Spread
    write_s: Spread
    query_s: Spread
    elapsed_s: Spread
    gpu_s: float


@dataclass(frozen=True, slots=True)
class Killed:
    """How long a clock stayed locked after its holder got SIGKILL."""

    locked_s: float
    clock_mhz: int


@dataclass(frozen=True, slots=True)
class Collectives:
    """Seconds of an all-reduce at a still high and low clock, and while the clock alternates between these two."""

    backend: str
    bytes: int
    high_mhz: int
    low_mhz: int
    high_s: Spread
    low_s: Spread
    switching_s: Spread
    switch_every_s: float


@dataclass(frozen=True, slots=True)
class Examined:
    """All that was measured on one GPU; what wasn't stands in `without`, with the reason."""

    uuid: str
    model: str
    permission: Permission | None = None
    pairs: tuple[Pair, ...] = ()
    settled: Settled | None = None
    counter: Counter | None = None
    waiting: tuple[Waiting, ...] = ()
    page: Page | None = None
    markers: Markers | None = None
    killed: Killed | None = None
    collectives: Collectives | None = None
    without: dict[str, str] = field(default_factory=dict)

    def lags_s(self, *, up: bool) -> tuple[float, ...]:
        """All lags of a direction."""
        return tuple(lag for _, lags in self.lags_by_target(up=up) for lag in lags)

    def lags_by_target(self, *, up: bool) -> tuple[tuple[int, tuple[float, ...]], ...]:
        """The same, of each clock switched to; 0 is default clocks."""
        found: dict[int, tuple[float, ...]] = {}
        for pair in self.pairs:
            if pair.up is up and pair.lags_s:
                found[pair.to_mhz] = found.get(pair.to_mhz, ()) + pair.lags_s
        return tuple(found.items())
