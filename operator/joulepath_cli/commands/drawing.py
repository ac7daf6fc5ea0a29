"""Plans and frontiers as the pictures' data."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from joulepath_cli.commands.goal import Made
from joulepath_cli.commands.scenario import Scenario
from joulepath_cli.pictures import frontier_svg, timeline_svg
from joulepath_cli.pictures.timeline_svg import Box, Strip
from joulepath_planner import ArgumentError, Frontier, Plan, Simulation
from joulepath_planner.explain import NO_SLACK_S
from joulepath_planner.inputs.text import read_text

__all__ = ["frontier_picture", "read_frontier", "timeline_picture"]


def timeline_picture(scenario: Scenario, made: Made) -> str:
    """One iteration at default clocks, and one with the plan."""
    default, replay = made.default, made.replay
    less = 1 - replay.energy_j / default.energy_j
    strips = (
        _strip(scenario, f"Default clocks: {_figures(default)}", default, made.straggler_s),
        _strip(scenario, f"With the plan: {_figures(replay)} ({less:.1%} less)", replay, made.pace_s),
    )
    waits = "waits for another stage"
    if made.pace_s:
        waits += " or the straggler" if made.straggler_s else ", or for the time that it is held at"
    return timeline_svg.draw(strips, f"{scenario.title}. Computed from the profile, not measured.", waits=waits)


def frontier_picture(
    scenario: Scenario,
    known: Frontier,
    made: Plan | None = None,
    plans: Sequence[Plan] = (),
    beside: tuple[str, Sequence[tuple[float, float]]] | None = None,
) -> str:
    """The lower bound by iteration time; a plan, others, and somebody else's frontier (its name and points) on it."""
    return frontier_svg.draw(
        known.outline,
        None if made is None else (made.iteration_time_s, made.energy_j),
        (known.t_min_s, known.baseline_energy_j),
        [],
        sorted(beside[1]) if beside else [],
        f"{scenario.title}. Computed from the profile, not measured.",
        published_label=beside[0] if beside else "",
        plans=[(one.iteration_time_s, one.energy_j) for one in plans],
    )


def read_frontier(path: Path) -> list[tuple[float, float]]:
    """Seconds and joules of an iteration from a CSV with columns time and energy.

    Raises:
        ArgumentError: It is no such CSV.
        OSError: The file can't be read.
    """
    text = read_text(path, ArgumentError)
    try:
        reader = csv.DictReader(StringIO(text, newline=""))
        if sum(name in ("time", "energy") for name in reader.fieldnames or ()) != 2:
            raise ValueError("it has other columns")
        points = [(float(row["time"]), float(row["energy"])) for row in reader]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        what = "a figure is missing" if isinstance(error, TypeError) else error
        raise ArgumentError(f"{path} is no frontier ({what}); its header must be time,energy.") from None
    if not points or not all(0 < value < math.inf for point in points for value in point):
        raise ArgumentError(f"{path} is no frontier: give at least one row, all of seconds and joules above 0.")
    return points


def _figures(replay: Simulation) -> str:
    return f"{replay.iteration_time_s:.3f} s, {replay.energy_j:.0f} J an iteration"


def _strip(scenario: Scenario, title: str, replay: Simulation, pace_s: float | None) -> Strip:
    """pace_s: how long an iteration lasts at least; the longest path delays nothing where it ends before."""
    path = {
        event.instruction for events in replay.ranks for event in events if pace_s is None or event.slack_s < NO_SLACK_S
    } & set(replay.critical_path)
    by_stage = scenario.pipeline.ranks == scenario.pipeline.schedule.stages
    boxes = [
        Box(
            stage=event.instruction.stage,
            instruction=str(event.instruction) if by_stage else event.instruction.label,
            begin_s=event.start_s,
            end_s=event.start_s + event.duration_s,
            power_w=event.energy_j / event.duration_s,
            critical=event.instruction in path,
            rank=None if by_stage else rank,
        )
        for rank, events in enumerate(replay.ranks)
        for event in events
    ]
    return Strip(title, boxes, pace_s or 0.0)
