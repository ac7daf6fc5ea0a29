"""The live view: phase and message of the EnergyPlan, clock, watts and iteration time of each rank."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from demo.live import line, view
from demo.watching import RankView, Snapshot
from joulepath_crds import Coordinates, EnergyPlanStatus, Phase, RankReport, RankState


def _rank(rank: int, clock_mhz: float | None, power_w: float | None) -> RankView:
    report = RankReport(
        rank=rank,
        pod="gpt3-master-0",
        pod_uid="u",
        gpu_uuid=f"GPU-{rank}",
        coordinates=Coordinates(pipeline=rank),
        stages=(rank,),
        stage_count=2,
        schedule="1F1B",
        microbatches=12,
        iteration=70 + rank,
        iteration_time_s=1.444,
        state=RankState.ENFORCING,
    )
    return RankView("node0", report, clock_mhz, power_w)


def _shown(snapshot: Snapshot) -> str:
    console = Console(record=True, width=140)
    console.print(view(snapshot, 61.0, "gpt3", 226))
    return console.export_text()


def test_the_view_tells_the_story_of_plan_and_ranks(status: Callable[..., EnergyPlanStatus]) -> None:
    active = status().model_copy(update={"phase": Phase.ACTIVE, "message": "The plan is in force.", "savings": None})
    shown = _shown(Snapshot(active, "Running", "", (_rank(0, 1230.0, 351.0), _rank(1, 1410.0, 99.0))))
    for words in (
        "EnergyPlan gpt3: Active, 61 s",
        "The plan is in force.",
        "T_min 1.420 s",
        "15.5% predicted",
        "not yet known",
        "450 W together",
        "1230 MHz",
        "351 W",
        "71 of 226",
        "1.444",
        "Enforcing",
    ):
        assert words in shown


def test_what_is_not_known_is_left_empty() -> None:
    shown = _shown(Snapshot(EnergyPlanStatus(), "", "", (_rank(0, None, None),)))
    assert "waiting for the operator" in shown
    assert "not started" in shown
    assert "MHz" not in shown
    assert " W " not in shown


def test_a_log_gets_one_line() -> None:
    told = line(Snapshot(EnergyPlanStatus(message="Waiting."), "Running", "", (_rank(0, None, None),)), 5.0)
    assert told == "   5 s  Pending: Waiting.  (job Running, 1 ranks, iteration 70)"
