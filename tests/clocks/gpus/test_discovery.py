"""When a node counts as one without GPUs, and when its NVML is in trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from joulepath_clocks.gpus.discovery import SILENT_S, Discovery
from joulepath_clocks.gpus.nvml import Gpu, GpuError, NoNvmlError


class KnownGpu:
    """A GPU for which NVML last answered so long ago."""

    uuid = "GPU-1"
    silent = 0.0
    there = True

    def silent_s(self, now_s: float) -> float:
        """See Gpu."""
        return self.silent

    def renew(self, found: KnownGpu | None) -> None:
        """See Gpu."""
        self.there = found is not None

    def sm_clock_mhz(self) -> int:
        """See Gpu."""
        return 1410

    def power_w(self) -> float:
        """See Gpu."""
        return 60.0

    def energy_j(self) -> float:
        """See Gpu."""
        return 1.0

    def read_limits(self) -> None:
        """See Gpu."""


class FakeNvml:
    """NVML as it is told to be; notes whether it is open."""

    def __init__(self, opened: Sequence[KnownGpu] | GpuError) -> None:
        self.opened, self.is_open = opened, False
        self.looks = 0

    def look(self) -> tuple[Sequence[Gpu], Sequence[str]]:
        """See Nvml."""
        self.looks += 1
        if isinstance(self.opened, GpuError):
            raise self.opened
        self.is_open = True
        return cast(Sequence[Gpu], self.opened), ()

    def let_go(self) -> bool:
        """See Nvml."""
        self.is_open = False
        return True


@pytest.fixture
def discover(tmp_path: Path) -> Callable[..., Discovery]:
    """Factory: what opening the GPUs does (or raises), and which are left locked."""

    def make(opened: Sequence[KnownGpu] | GpuError, *left: str) -> Discovery:
        return Discovery(FakeNvml(opened), lambda _: None, lambda: True, lambda: left, proc=tmp_path, retry_s=30.0)

    return make


def test_a_node_without_library_driver_and_locked_gpu_has_no_gpus(discover: Callable[..., Discovery]) -> None:
    assert discover(NoNvmlError("no library")).well


def test_a_missing_library_is_trouble_where_a_gpu_may_be_locked_or_a_driver_is_loaded(
    discover: Callable[..., Discovery], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not discover(NoNvmlError("no library"), "GPU-1").well
    assert "these GPUs may still be locked, says the warden: GPU-1" in caplog.text
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia" / "version").write_text("NVRM version: ...")
    assert not discover(NoNvmlError("no library")).well
    assert "give this pod the NVIDIA runtime class" in caplog.text


def test_an_nvml_that_fails_is_trouble_and_hopeless_in_the_end(
    discover: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = discover(GpuError("driver/library version mismatch"))
    assert not found.well
    assert not found.hopeless
    later_s = time.monotonic() + 301
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert found.hopeless


def test_gpus_that_all_fall_silent_are_trouble_and_one_that_answers_is_none(discover: Callable[..., Discovery]) -> None:
    silent, well = KnownGpu(), KnownGpu()
    silent.silent = SILENT_S + 1
    assert discover([silent, well]).well
    assert not discover([silent]).well


def test_nvml_is_let_go_of_while_idle_looked_at_now_and_then_and_opened_for_a_rank_that_comes(tmp_path: Path) -> None:
    first, second, idle = KnownGpu(), KnownGpu(), [False]
    second.uuid = "GPU-2"
    nvml, adopted = FakeNvml([first, second]), list[str]()
    found = Discovery(
        nvml,
        lambda gpus: adopted.extend(gpu.uuid for gpu in gpus),
        lambda: idle[0],
        lambda: (),
        proc=tmp_path,
        retry_s=30.0,
    )
    now = time.monotonic() + 1000.0
    found._turn(now)
    assert (nvml.is_open, nvml.looks) == (True, 1), "a rank is there"
    idle[0] = True
    found._turn(now + 1.0)
    assert not nvml.is_open
    for turn in range(2, 10):
        found._turn(now + turn)
    assert (nvml.is_open, nvml.looks) == (False, 1)
    third = KnownGpu()
    third.uuid = "GPU-3"
    nvml.opened = [second, third]
    found._turn(now + 31.0)
    assert (nvml.is_open, nvml.looks) == (False, 2)
    assert (adopted, first.there, second.there) == (["GPU-1", "GPU-2", "GPU-3"], False, True)
    found.wake()
    assert (nvml.is_open, nvml.looks) == (True, 3)
    found._turn(time.monotonic() + 1.0)
    assert nvml.is_open, "the rank that has said hello is about to come"


def test_a_driver_that_is_gone_when_it_is_looked_for_is_trouble_until_it_is_back(
    discover: Callable[..., Discovery], tmp_path: Path
) -> None:
    nvml = FakeNvml([KnownGpu()])
    found = Discovery(nvml, lambda _: None, lambda: True, lambda: (), proc=tmp_path, retry_s=30.0)
    nvml.let_go()
    working, nvml.opened = nvml.opened, GpuError("driver not loaded")
    found.wake()
    assert not found.well
    nvml.opened = working
    found.wake()
    assert found.well
