"""Pytest fixtures: virtual GPUs of a test's own, and the environment in which processes find them.

Wire them with `pytest_plugins = ["virtual_gpus.fixtures"]` in the top conftest.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from virtual_gpus import model, state
from virtual_gpus.build import library_dir

__all__ = ["MakeVirtualGpus", "VirtualGpus", "make_virtual_gpus", "run_program"]


@dataclass(frozen=True, slots=True)
class VirtualGpus:
    """A node of virtual GPUs. `environment` is a whole environment for a subprocess that is to see them."""

    path: Path
    model: model.Model
    options: state.Options
    environment: dict[str, str]

    @property
    def uuids(self) -> list[str]:
        """As NVML names them, by number."""
        return state.uuids(self.path)

    def look(self, gpu: int = 0) -> state.GpuState:
        """The exact state of a GPU, now."""
        return state.look(self.path, gpu)

    def orders(self, gpu: int = 0, first: int = 0) -> tuple[state.Order, ...]:
        """Every order of a GPU's clock since number `first`."""
        return state.orders(self.path, gpu, first)

    def break_gpu(
        self,
        gpu: int = 0,
        *,
        lost: bool = False,
        set_error: int = 0,
        hang: Collection[state.HangingCall] = (),
        slower: float = 0.0,
    ) -> None:
        """Lose a GPU, let its clock calls fail, calls hang, or heat slow it; without options: mend it."""
        state.break_gpu(self.path, gpu, lost=lost, set_error=set_error, hang=hang, slower=slower)


MakeVirtualGpus = Callable[..., VirtualGpus]


@pytest.fixture
def make_virtual_gpus(tmp_path: Path) -> MakeVirtualGpus:
    """Factory: `make_virtual_gpus(gpu_model=None, name="state", **options)` lays a fresh node.

    Without a model: the parametric one with its defaults. Options are those of state.Options; `root_only` is off
    unless asked for, so that tests set clocks as any user.
    """

    def make(gpu_model: model.Model | None = None, *, name: str = "state", **options: object) -> VirtualGpus:
        chosen = state.Options(**{"root_only": False, "node": name, **options})  # type: ignore[arg-type]
        kind = gpu_model or model.parametric({})
        path = tmp_path / "virtual-gpus" / name
        state.create(path, kind, chosen)
        libraries = str(library_dir())
        before = os.environ.get("LD_LIBRARY_PATH")
        environment = {
            **os.environ,
            "VIRTUAL_GPUS_STATE": str(path),
            "NVIDIA_VISIBLE_DEVICES": "all",
            "LD_LIBRARY_PATH": f"{libraries}:{before}" if before else libraries,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])),
        }
        return VirtualGpus(path, kind, chosen, environment)

    return make


def run_program(gpus: VirtualGpus, program: str, *, extra: dict[str, str] | None = None, **arguments: object) -> Any:
    """Run one of programs.py in a process that sees these GPUs; what it returned."""
    command = [sys.executable, "-m", "virtual_gpus.programs", program, json.dumps(arguments)]
    environment = {**gpus.environment, **(extra or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
