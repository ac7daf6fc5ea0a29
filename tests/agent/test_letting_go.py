"""Agent and warden stand in nobody's way: while no rank is on a GPU, neither has the driver's devices open."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from joulepath_crds import Purpose, RankState, Sweep
from tests.agent.room import Process, Room, wait_until
from tests.agent.test_agent import plan
from tests.agent.test_metrics import get
from virtual_gpus.fixtures import run_program

LOW_MHZ = 900
IN_USE = 19


def has_devices_open(process: Process, state: Path) -> bool:
    """Whether a process has a descriptor of the virtual GPUs, as one that uses NVML has of /dev/nvidia*."""
    return any(os.path.realpath(link) == str(state) for link in Path(f"/proc/{process.pid}/fd").iterdir())


@pytest.mark.slow
def test_the_devices_are_open_while_a_rank_is_there_and_at_no_other_time(room: Callable[..., Room]) -> None:
    made = room(gpus=1, time_scale=0.1)
    state = made.gpus.path.resolve()
    warden, agent = made.warden(), made.agent()
    parts = (warden, agent.clocks, agent)
    wait_until(lambda: not any(has_devices_open(part, state) for part in parts), "NVML is let go of")
    assert "joulepath_gpu_power_watts{" in get(agent, "/metrics"), "of idle GPUs, as last looked at"
    assert agent.report().gpus[0].refused is None

    peer = made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    assert has_devices_open(agent.clocks, state)
    wait_until(lambda: has_devices_open(agent, state), "the agent reads the counter")
    sweep = Sweep(clocks_mhz=(LOW_MHZ,) * 400, iterations_per_block=100)
    agent.plans(plan("held", purpose=Purpose.SWEEP, stages=(), sweep=sweep, activate_at=0))
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is held")
    wait_until(lambda: has_devices_open(warden, state), "the warden is ready to reset it")
    assert run_program(made.gpus, "set_mig_mode", mode=1) == {"activation": IN_USE, "current": 0}

    peer.send(signal.SIGKILL)
    wait_until(lambda: not any(has_devices_open(part, state) for part in parts), "NVML is let go of again")
    assert (made.clock(), made.named()) == (0, [])
    assert run_program(made.gpus, "set_mig_mode", mode=1) == {"activation": 0, "current": 1}

    assert made.peer(iterations=100_000).hear()["accepted"]
    # Who refuses first, the GPU's own reading or the plan's, is a matter of moments.
    wait_until(lambda: agent.report().gpus[0].refused is not None, "the GPU is seen anew when a rank comes")
    assert (agent.report().gpus[0].refused or "").startswith("MIG mode is on")
    wait_until(lambda: (r := agent.rank()) is not None and r.state is RankState.REFUSED, "the plan is refused")
    assert made.clock() == 0
