"""NVML as nvidia-ml-py and nvitop see it: facts, clocks with lag, the coarse counter, permissions, faults."""

from __future__ import annotations

import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pynvml
import pytest

from virtual_gpus import model, state
from virtual_gpus.fixtures import MakeVirtualGpus, run_program

QUIET = {"power_variation": 0.0, "time_noise": 0.0}
EXACT_LAG = {"lag_spread": 0.0, "lag_target_spread": 0.0}
MS = 1_000_000


def test_nvml_describes_an_idle_a100_to_nvidia_ml_py(make_virtual_gpus: MakeVirtualGpus) -> None:
    seen = run_program(make_virtual_gpus(**QUIET), "describe")
    assert seen["name"] == "NVIDIA A100-SXM4-80GB"
    assert "virtual" in seen["driver"]
    assert (seen["clocks"][0], seen["clocks"][-1], len(seen["clocks"])) == (1410, 210, 81)
    assert (seen["mig"], seen["minor"], seen["persistence"], seen["by_uuid"]) == ([0, 0], 0, 1, 0)
    assert (seen["limits_mw"], seen["limit_mw"]) == ([100_000, 400_000], 400_000)
    assert (seen["clock_mhz"], seen["reasons"], seen["processes"]) == (210, 1, 0)
    assert seen["bus"] == "00000000:10:00.0"
    assert seen["memory_bytes"] == 80 << 30
    assert 28 < seen["temperature_c"] < 40
    assert seen["bad_range"] == seen["bad_index"] == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert seen["fan"] == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_minor_numbers_and_mig_mode_are_as_laid(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(gpus=2, minors="5,3", mig="0")
    seen = run_program(gpus, "describe")
    assert (seen["minor"], seen["mig"]) == (5, [1, 1])
    assert state.minors(gpus.path) == [5, 3]
    with pytest.raises(ValueError, match="a number of its own"):
        make_virtual_gpus(gpus=2, minors="1,1")


def test_nvml_and_cuda_name_the_same_gpus_and_names_follow_from_the_node(make_virtual_gpus: MakeVirtualGpus) -> None:
    first, again = make_virtual_gpus(name="a"), make_virtual_gpus(name="b", node="a")
    seen = run_program(first, "describe")
    assert seen["nvml_uuids"] == first.uuids == again.uuids
    assert seen["cuda_uuids"] == [uuid.UUID(u.removeprefix("GPU-")).hex for u in first.uuids]
    assert len(set(first.uuids) | set(make_virtual_gpus(name="c").uuids)) == 8


def test_a_container_sees_its_gpus_only_cuda_in_the_order_asked_nvml_by_bus(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus()
    asked = [gpus.uuids[3], gpus.uuids[1]]
    seen = run_program(gpus, "describe", extra={"NVIDIA_VISIBLE_DEVICES": ",".join(asked)})
    assert seen["cuda_uuids"] == [uuid.UUID(u.removeprefix("GPU-")).hex for u in asked]
    assert seen["nvml_uuids"] == asked[::-1]


def test_nvitop_shows_the_gpus(make_virtual_gpus: MakeVirtualGpus) -> None:
    command = [sys.executable, "-m", "nvitop", "-1"]
    shown = subprocess.run(
        command, env=make_virtual_gpus().environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "A100-SXM4-80GB" in shown.stdout
    assert "400W" in shown.stdout


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_clock_gets_into_force_after_the_lag(make_virtual_gpus: MakeVirtualGpus, scale: float) -> None:
    gpus = make_virtual_gpus(lag_ms=100, time_scale=scale, block_ms=0, **EXACT_LAG)
    ((before, after),) = run_program(gpus, "set_clocks", targets=[900])
    seen = gpus.look()
    down_ns = 105 * scale * MS
    assert before + down_ns <= seen.change_ns <= after + down_ns
    assert seen.lock_high_mhz == (900 if seen.now_ns >= seen.change_ns else 0)


def test_a_second_change_waits_for_the_first(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(lag_ms=50_000, block_ms=0, **EXACT_LAG)
    (first, _), _, (_, last) = run_program(gpus, "set_clocks", targets=[900, 600, 0])
    seen = gpus.look()
    assert (seen.pending, seen.lock_high_mhz, seen.next_high_mhz, seen.sets, seen.resets) == (3, 0, 0, 2, 1)
    total_ns = (2 * 1.05 + 0.95) * 50_000 * MS  # two down, one up
    assert first + total_ns <= seen.change_ns <= last + total_ns


def test_lags_differ_by_target_and_call_within_their_spreads(make_virtual_gpus: MakeVirtualGpus) -> None:
    lags = set()
    for seed in range(4):
        gpus = make_virtual_gpus(name=f"s{seed}", seed=seed, lag_ms=50_000, lag_spread=0.2, lag_target_spread=0.1)
        ((before, after),) = run_program(gpus, "set_clocks", targets=[900])
        lag_ms = (gpus.look().change_ns - before) / MS
        assert 50_000 * 1.05 * 0.9 * 0.8 <= lag_ms <= 50_000 * 1.05 * 1.1 * 1.2 + (after - before) / MS
        lags.add(round(lag_ms / 500))
    assert len(lags) > 1


def test_lags_to_slow_targets_are_those_named_for_them_in_both_directions(make_virtual_gpus: MakeVirtualGpus) -> None:
    for at, (targets, lag_ms) in enumerate(
        (([900], 2000 * 1.05), ([1110], 100 * 1.05), ([600, 1005], 100 * 1.05 + 2000 * 0.95))
    ):
        slow = {"slow_targets": "900-1100", "slow_lag_ms": 2000}
        gpus = make_virtual_gpus(name=f"slow{at}", lag_ms=100, block_ms=0, **slow, **EXACT_LAG)
        (before, _), *_, (_, after) = [*run_program(gpus, "set_clocks", targets=targets)] * 2
        assert before + lag_ms * MS <= gpus.look().change_ns <= after + lag_ms * MS


def test_a_swamped_driver_forgets_all_but_the_latest_change(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(lag_ms=50_000, block_ms=0)
    run_program(gpus, "set_clocks", targets=[900, 600] * 50 + [1305])
    seen = gpus.look()
    assert (seen.sets, seen.pending, seen.next_high_mhz) == (101, 8, 1305)


def test_every_order_is_seen_from_another_process_by_its_number(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(lag_ms=50_000, block_ms=0)
    asked = run_program(gpus, "set_clocks", targets=[900, 600, 0] * 1400)
    seen = gpus.orders()
    assert [one.number for one in seen] == list(range(4200 - 4096, 4200))
    assert [one.high_mhz for one in seen] == ([900, 600, 0] * 1400)[-4096:]
    assert all(
        before <= one.called_ns <= one.taken_ns <= after
        for one, (before, after) in zip(seen, asked[-4096:], strict=True)
    )
    assert gpus.orders(first=4198) == seen[-2:]
    assert gpus.orders(first=4200) == gpus.orders(gpu=1) == ()


def test_a_set_call_blocks_for_its_time(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(block_ms=40, time_scale=0.5)
    ((before, after),) = run_program(gpus, "set_clocks", targets=[900])
    assert after - before >= 20 * MS


def test_an_unlocked_gpu_returns_to_its_top_clock_when_used(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(lag_ms=0, block_ms=0, **QUIET)
    run_program(gpus, "set_clocks", targets=[900, 0])
    assert (gpus.look().lock_high_mhz, gpus.look().clock_mhz) == (0, 210)
    ran = run_program(gpus, "run_kernels", names=[[0, "F"]])
    assert ran["seconds"] == [pytest.approx(gpus.model.kernel(0, "F").time_s[-1], abs=1e-6)]


def test_setting_clocks_takes_cap_sys_admin_and_nothing_else(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(root_only=True)
    for drop in (False, True):
        seen = run_program(gpus, "set_clock_error", drop=drop)
        assert seen["error"] == (0 if seen["capable"] else pynvml.NVML_ERROR_NO_PERMISSION)
    assert not seen["capable"]


def test_a_lost_gpu_and_a_refusing_driver_say_so_until_mended(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus()
    gpus.break_gpu(2, set_error=pynvml.NVML_ERROR_UNKNOWN)
    assert run_program(gpus, "set_clock_error", gpu=2)["error"] == pynvml.NVML_ERROR_UNKNOWN
    assert run_program(gpus, "set_clock_error", gpu=1)["error"] == 0
    gpus.break_gpu(2, lost=True)
    assert run_program(gpus, "set_clock_error", gpu=2)["error"] == pynvml.NVML_ERROR_GPU_IS_LOST
    gpus.break_gpu(2)
    assert run_program(gpus, "set_clock_error", gpu=2)["error"] == 0


@pytest.mark.parametrize(("calls", "still"), [(("set",), 1), (("read", "reset"), 0)])
def test_a_call_hangs_where_it_was_told_to_until_it_is_told_otherwise(
    make_virtual_gpus: MakeVirtualGpus, calls: tuple[state.HangingCall, ...], still: int
) -> None:
    gpus = make_virtual_gpus()
    gpus.break_gpu(1, hang=calls)
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(run_program, gpus, "set_clock_error", gpu=1)
        assert run_program(gpus, "set_clock_error", gpu=0)["error"] == 0
        if still:
            with pytest.raises(TimeoutError):
                one.result(timeout=0.5)
            assert gpus.look(1).sets == 0
            gpus.break_gpu(1)
        assert one.result()["error"] == 0
    assert gpus.look(1).sets == 1


def test_the_energy_counter_moves_only_every_period(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(counter_period_ms=100, time_scale=0.5)
    seen = run_program(gpus, "watch_counter", values=6)
    assert seen["shown"] == sorted(set(seen["shown"]))
    assert seen["seconds"] / 0.05 + 2 >= 6
    assert seen["reads"] > 20 * 6


def test_the_counter_lags_the_exact_energy_by_less_than_a_period(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(counter_period_ms=50, **QUIET)
    before = gpus.look()
    seen = run_program(gpus, "watch_counter", values=4)
    after = gpus.look()
    top_w = gpus.model.blocking_w[-1]
    shown_j = seen["shown"][-1] / 1e3
    assert before.energy_j < shown_j <= after.energy_j
    assert after.energy_j - shown_j <= top_w * (0.05 + (after.now_ns - before.now_ns) / 1e9 - seen["seconds"])


def test_an_idle_gpu_draws_its_idle_power(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(**QUIET)
    first, second = gpus.look(), gpus.look()
    assert first.power_w == gpus.model.idle_w
    assert second.energy_j - first.energy_j == pytest.approx(55 * (second.now_ns - first.now_ns) / 1e9, abs=1e-6)


def test_gpus_differ_in_power_by_at_most_the_variation(make_virtual_gpus: MakeVirtualGpus) -> None:
    gpus = make_virtual_gpus(gpus=8, power_variation=0.03)
    watts = [gpus.look(i).power_w for i in range(8)]
    assert len(set(watts)) == 8
    assert all(abs(w / gpus.model.idle_w - 1) <= 0.03 for w in watts)


def test_a_power_cap_lowers_the_clock_and_is_given_as_the_reason(make_virtual_gpus: MakeVirtualGpus) -> None:
    capped = model.parametric({"power_cap_w": 300.0, "leak_per_k": 0.0, "seconds": {"F": 0.05, "W": 0.2}})
    gpus = make_virtual_gpus(capped, **QUIET)
    table = capped.kernel(0, "F")
    fits = max(i for i, w in enumerate(table.power_w) if w <= 300)
    ran = run_program(gpus, "run_kernels", names=[[0, "F"]])
    assert fits < len(table.power_w) - 1
    assert ran["seconds"] == [pytest.approx(table.time_s[fits], abs=1e-6)]


def test_heat_lets_static_power_leak(make_virtual_gpus: MakeVirtualGpus) -> None:
    leaking = model.parametric({"leak_per_k": 0.05, "power_cap_w": 1000.0, "seconds": {"F": 0.2, "W": 0.2}})
    gpus = make_virtual_gpus(leaking, time_scale=0.1, **QUIET)
    before = gpus.look()
    run_program(gpus, "run_kernels", names=[[0, "F"]] * 40)
    after = gpus.look()
    assert after.temperature_c > before.temperature_c
    blocked_j = max(leaking.blocking_w) * 1.5 * ((after.now_ns - before.now_ns) / 1e9 - after.busy_s)
    assert after.energy_j - before.energy_j > after.busy_s * leaking.kernel(0, "F").power_w[-1] - blocked_j
