"""The script for a rented GPU: on one, what it finds; elsewhere, that its steps run on virtual GPUs and say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE.parents[1] / "benchmarks/results"
on_a_gpu: Final = pytest.mark.skipif(
    not Path("/dev/nvidiactl").exists(), reason="needs an NVIDIA GPU, and torch with CUDA: there is none here"
)


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The script's exit status and its JSON."""
    environment = {**os.environ, "PATIENCE": "4"}
    command = [sys.executable, str(HERE / "run.py"), "--out", str(out), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    (written,) = out.glob("gpu-*.json")
    return done.returncode, json.loads(written.read_text())


@pytest.mark.slow
def test_a_dry_run_says_that_it_is_none_of_a_gpu(tmp_path: Path) -> None:
    before = sorted(RESULTS.iterdir())
    steps = ("machine", "warden", "doctor", "aftermath")
    arguments = ("--virtual", "--virtual-gpus", "1", "--pace", "0.06", "--only", *steps)
    status, found = run(tmp_path, *arguments)
    assert status == 0
    assert {name: told["done"] for name, told in found["steps"].items()} == dict.fromkeys(steps, True)
    assert found["virtual"]
    assert "no figure of it is a GPU's" in found["what"]
    assert found["doctor"]["gpus"][0]["settled"]["clock_mhz"] == 1410
    assert found["aftermath"] == {"warden_exit": 0, "journal": []}
    assert sorted(RESULTS.iterdir()) == before, "a dry run leaves no result"


def test_a_step_that_fails_stops_none_after_it(tmp_path: Path) -> None:
    status, found = run(tmp_path, "--virtual", "--only", "warden", "training", "aftermath")
    assert status == 1
    failed = found["steps"]["training"]
    assert not failed["done"], "the step that looks for GPUs was left out"
    assert "--gpu" in failed["why"]
    assert found["steps"]["aftermath"]["done"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the whole script found on the GPU here."""
    return run(tmp_path_factory.mktemp("gpu"))[1]


@on_a_gpu
@pytest.mark.timeout(600)
def test_the_doctor_examines_a_gpu(found: dict[str, Any]) -> None:
    examined = found["doctor"]["gpus"][0]
    assert examined["settled"]["clock_mhz"] > 0
    assert examined["counter"]["period_s"]["median"] < 1.0
    assert examined["page"]["ordered"]
    assert examined["page"]["seen"] > 0
    if examined["permission"]["can_set"]:
        assert any(pair["lags_s"] for pair in examined["pairs"])
        assert examined["killed"]["locked_s"] < 2.0


@on_a_gpu
@pytest.mark.timeout(600)
def test_a_training_is_followed_and_its_clock_set(found: dict[str, Any]) -> None:
    training = found["training"]
    assert training["observed_step_s"] < 1.05 * found["plain"]["step_s"]
    if found["doctor"]["gpus"][0]["permission"]["can_set"]:
        arms = training["plan"]["arms"]
        assert arms["plan"]["blocks"] >= 4
        assert arms["plan"]["energy_j"] < arms["control"]["energy_j"]
    assert found["aftermath"]["journal"] == []
