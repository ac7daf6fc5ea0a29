"""When a node counts as one without GPUs, and when its NVML is in trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from joulepath_agent.gpus.discovery import SILENT_S, Discovery
from joulepath_agent.gpus.nvml import Gpu, GpuError, NoNvmlError


class KnownGpu:
    """A GPU for which NVML last answered so long ago."""

    uuid = "GPU-1"
    silent = 0.0

    def silent_s(self, now_s: float) -> float:
        """See Gpu."""
        return self.silent


@pytest.fixture
def discover(tmp_path: Path) -> Callable[..., Discovery]:
    """Factory: what opening the GPUs does (or raises), and which are left locked."""

    def make(opened: Sequence[KnownGpu] | GpuError, *left: str) -> Discovery:
        def open_gpus() -> tuple[Sequence[Gpu], Sequence[str]]:
            if isinstance(opened, GpuError):
                raise opened
            return cast(Sequence[Gpu], opened), ()

        return Discovery(open_gpus, lambda _: None, lambda: left, proc=tmp_path, retry_s=30.0)

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
