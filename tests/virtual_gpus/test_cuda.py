"""CUDA's driver API: order in streams, time of kernels at the clock in force, energy, and what death leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from virtual_gpus import model
from virtual_gpus.build import library_dir
from virtual_gpus.fixtures import MakeVirtualGpus, run_program
from virtual_gpus.programs import NOT_READY

QUIET = {"power_variation": 0.0, "time_noise": 0.0, "lag_ms": 1.0, "block_ms": 0.0}
COLD = {"leak_per_k": 0.0, "power_cap_w": 1000.0}
HALF_US = 0.6e-6
CLOCKS = model.A100_CLOCKS.all_mhz


def _two_kernels(short_s: float, long_s: float) -> model.Model:
    return model.parametric({**COLD, "stage_scale": [1.0], "seconds": {"F": short_s, "B": long_s, "W": 0.2}})


@pytest.mark.parametrize("clock_mhz", [1410, 1110, 210])
def test_a_kernel_takes_the_time_of_its_clock(make_virtual_gpus: MakeVirtualGpus, clock_mhz: int) -> None:
    made = _two_kernels(0.02, 0.03)
    gpus = make_virtual_gpus(made, time_scale=0.5, **QUIET)
    ran = run_program(gpus, "run_kernels", names=[[0, "F"], [0, "B"]], clock_mhz=clock_mhz)
    at = CLOCKS.index(clock_mhz)
    expected = [made.kernel(0, kind).time_s[at] / 2 for kind in "FB"]
    assert ran["seconds"] == pytest.approx(expected, abs=HALF_US)


def test_heat_makes_kernels_longer_at_the_same_clock_until_it_is_over(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(_two_kernels(0.02, 0.03), **QUIET)
    names = [[0, "F"], [0, "B"]]
    gpus.break_gpu(0, slower=0.25)
    assert run_program(gpus, "run_kernels", names=names)["seconds"] == pytest.approx([0.025, 0.0375], abs=HALF_US)
    gpus.break_gpu(0)
    assert run_program(gpus, "run_kernels", names=names)["seconds"] == pytest.approx([0.02, 0.03], abs=HALF_US)


def test_queued_kernels_follow_each_other_without_gaps(make_virtual_gpus: MakeVirtualGpus) -> None:
    made = _two_kernels(0.005, 0.01)
    ran = run_program(make_virtual_gpus(made, **QUIET), "run_kernels", names=[[0, "F"], [0, "B"]] * 15)
    assert sum(ran["seconds"]) == pytest.approx(15 * 0.015, abs=30 * HALF_US)


def test_kernels_differ_by_the_noise_asked_for(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(_two_kernels(0.005, 0.01), **{**QUIET, "time_noise": 0.01})
    seconds = run_program(gpus, "run_kernels", names=[[0, "F"]] * 30)["seconds"]
    assert len(set(seconds)) > 20
    assert all(abs(s / 0.005 - 1) < 0.031 for s in seconds)


def test_a_clock_change_in_mid_kernel_stretches_what_is_left_of_it(make_virtual_gpus: MakeVirtualGpus) -> None:
    made = _two_kernels(1.0, 1.0)
    gpus = make_virtual_gpus(made, **{**QUIET, "lag_ms": 500})
    ran = run_program(gpus, "change_clock_in_kernel", clock_mhz=600)
    table = made.kernel(0, "F").time_s
    fast, slow = table[-1], table[CLOCKS.index(600)]
    at_top_s = (ran["seconds"] - slow) / (1 - slow / fast)
    start_ns = gpus.look().change_ns - at_top_s * 1e9
    launched, after = ran["launched"]
    ahead_ns = 0.2e9  # the kernel that ran first
    assert launched + ahead_ns - 1e4 <= start_ns <= after + ahead_ns + 1e4


def test_a_kernel_stands_still_once_a_change_is_in_force_for_as_long_as_was_asked_for(
    make_virtual_gpus: MakeVirtualGpus,
) -> None:
    made, top_mhz = _two_kernels(1.0, 1.0), CLOCKS[-1]
    gpus = make_virtual_gpus(made, time_scale=0.5, **{**QUIET, "lag_ms": 500, "pause_ms": 80})
    before = gpus.look()
    ran = run_program(gpus, "change_clock_in_kernel", clock_mhz=top_mhz)
    after = gpus.look()
    assert ran["seconds"] == pytest.approx(0.5 + 0.04, abs=HALF_US)
    busy_s = after.busy_s - before.busy_s
    assert busy_s == pytest.approx(0.1 + 0.5 + 0.04, abs=1e-6)
    assert after.energy_j - before.energy_j >= made.kernel(0, "F").power_w[-1] * busy_s


def test_energy_is_the_kernels_power_while_busy_and_blocking_power_between(make_virtual_gpus: MakeVirtualGpus) -> None:
    made = _two_kernels(0.02, 0.04)
    gpus = make_virtual_gpus(made, **QUIET)
    before = gpus.look()
    run_program(gpus, "run_kernels", names=[[0, "F"], [0, "B"]])
    after = gpus.look()
    busy_s, seconds = after.busy_s - before.busy_s, (after.now_ns - before.now_ns) / 1e9
    kernel_w, blocking_w, idle_w = made.kernel(0, "F").power_w[-1], made.blocking_w[-1], made.idle_w
    assert after.kernels == 3
    assert busy_s == pytest.approx(0.2 + 0.02 + 0.04, abs=1e-6)
    joules = after.energy_j - before.energy_j - kernel_w * busy_s
    assert idle_w * (seconds - busy_s) <= joules <= blocking_w * (seconds - busy_s)


def test_the_host_runs_ahead_and_memory_operations_keep_their_place(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(_two_kernels(0.01, 3600.0), **QUIET)
    seen = run_program(gpus, "memory_operations")
    assert (seen["value"], seen["query"], seen["unregistered"]) == (1, NOT_READY, 1)


def test_a_stream_waits_for_anothers_event_and_calls_the_host(make_virtual_gpus: MakeVirtualGpus) -> None:
    seen = run_program(make_virtual_gpus(_two_kernels(0.02, 0.02), **QUIET), "two_streams")
    assert seen["first"] >= 0.02 - HALF_US
    assert seen["total"] >= seen["first"] + 0.02 - HALF_US
    assert (seen["called"], seen["unknown"], seen["gone"]) == (1, 500, 400)


def test_the_default_stream_waits_for_blocking_streams(make_virtual_gpus: MakeVirtualGpus) -> None:
    seen = run_program(make_virtual_gpus(_two_kernels(0.02, 0.02), **QUIET), "default_stream_order")
    assert seen["seconds"] >= 0.02 - HALF_US


def test_a_forked_child_can_neither_use_nor_free_its_parents_gpu(make_virtual_gpus: MakeVirtualGpus) -> None:
    seen = run_program(make_virtual_gpus(_two_kernels(0.01, 0.01), **QUIET), "fork")
    assert (seen["child"], seen["processes"]) == (3, 1)


def test_a_process_killed_in_mid_kernel_leaves_an_idle_gpu(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(_two_kernels(0.01, 3600.0), **QUIET)
    command = [sys.executable, "-m", "virtual_gpus.programs", "run_until_killed", "{}"]
    with subprocess.Popen(command, env=gpus.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        while not gpus.look().running:
            time.sleep(0.01)
        assert gpus.look().owners == 1
        assert gpus.look().power_w == pytest.approx(gpus.model.kernel(0, "B").power_w[-1])
        os.kill(process.pid, signal.SIGKILL)
    first, second = gpus.look(), gpus.look()
    assert (first.owners, first.running, first.power_w) == (0, False, 55.0)
    assert second.energy_j - first.energy_j == pytest.approx(55e-9 * (second.now_ns - first.now_ns), abs=1e-6)
    ran = run_program(gpus, "run_kernels", names=[[0, "F"]])
    assert ran["seconds"] == [pytest.approx(0.01, abs=HALF_US)]


def test_a_program_built_against_nvidias_own_header_runs(make_virtual_gpus: MakeVirtualGpus, tmp_path: Path) -> None:
    found = importlib.util.find_spec("triton")
    assert found, "triton, which comes with torch, carries NVIDIA's cuda.h"
    assert found.submodule_search_locations
    include = Path(found.submodule_search_locations[0]) / "backends/nvidia/include"
    program, source = tmp_path / "program", Path(__file__).with_name("uses_cuda_h.c")
    libraries = library_dir()
    subprocess.run(["gcc", f"-I{include}", source, "-o", program, libraries / "libcuda.so.1"], check=True)
    gpus = make_virtual_gpus(_two_kernels(0.01, 0.01), **QUIET)
    done = subprocess.run([program], env=gpus.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "7\n")
