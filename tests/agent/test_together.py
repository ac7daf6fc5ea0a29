"""Two training processes as tensor-parallel peers of a stage, one of them always late: their GPUs switch together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joulepath_crds import JobPlanSpec, Purpose, StagePlan
from tests.agent.room import Room, wait_until

ORDER = ("F0", "B0", "F1", "B1", "F2", "B2", "F3", "B3")
LOW_MHZ = 900
LATE_S = 0.06


def test_the_clock_of_a_peer_that_is_first_is_lowered_with_that_of_the_last(
    room: Callable[..., Room], tmp_path: Path
) -> None:
    made = room(gpus=2, time_scale=0.3)
    agent = made.agent()
    pipes = [str(tmp_path / name) for name in ("first", "second")]
    for pipe in pipes:
        os.mkfifo(pipe)
    for tensor in range(2):
        peer: dict[str, Any] = {
            "ordinal": tensor,
            "rank": tensor,
            "tensor": tensor,
            "tensor_parallel": 2,
            "ranks": [tensor, tensor + 2],
            "order": ORDER,
            "iterations": 100_000,
            "waits_s": [0.0],
            "in_step": {"reads": pipes[tensor], "writes": pipes[1 - tensor]},
            "late_s": tensor * LATE_S,
        }
        made.peer(**peer)
    model = made.gpus.model
    seconds = {kind: 0.3 * model.kernel(0, kind).time_s[-1] for kind in "FB"}
    stage = StagePlan(
        stage=0,
        order=ORDER,
        clocks_mhz=tuple(0 if name[0] == "F" else LOW_MHZ for name in ORDER),
        durations_s=tuple(seconds[name[0]] for name in ORDER),
    )
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="job-uid",
        purpose=Purpose.ENFORCE,
        hash="one",
        activate_at=3,
        stages=(stage,),
        default_clock_mhz=1410,
        plan_iteration_time_s=10.0,
    )
    agent.plans(spec.to_api())

    def are_lowered_together() -> bool:
        one, other = ([low.called_ns for low in made.gpus.orders(gpu) if low.high_mhz == LOW_MHZ] for gpu in range(2))
        return sum(any(abs(at - near) < LATE_S / 2 * 1e9 for near in other) for at in one) >= 3

    wait_until(are_lowered_together, "both are lowered within half the time that one is later than the other")
    assert [agent.rank(rank).state for rank in range(2)] == ["Enforcing"] * 2  # type: ignore[union-attr]
