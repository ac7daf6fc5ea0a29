"""Pipelines for the planner's tests: drawn ones, and the published GPT-3 one."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from joulepath_planner import (
    SCHEDULES,
    Pipeline,
    Point,
    Profile,
    Schedule,
    ScheduleError,
    gpipe,
    one_f_one_b,
    schedule_by_name,
)

CLOCKS = (1400, 1300, 1200, 1100, 1000)
HERE = Path(__file__).parent
EXCERPT = HERE / "data" / "gpt3-175b_a100-sxm_excerpt.csv"
BLOCKING_POWER_W = 83.64


def gpt3(microbatches: int = 12, **extra: object) -> Pipeline:
    """Eight stages as published: 0 to 6 alike, 7 slower."""
    excerpt = Profile.from_csv(EXCERPT, blocking_power_w=BLOCKING_POWER_W)
    points = {(stage, kind): excerpt.points[7 if stage == 7 else 0, kind] for stage in range(8) for kind in "FB"}
    return Pipeline(one_f_one_b(8, microbatches), Profile(points, BLOCKING_POWER_W), **extra)  # type: ignore[arg-type]


def scaled(stages: list[float], microbatches: int) -> Pipeline:
    """Stages that last so many times as long as a smooth, made-up one of 50 ms and 100 ms."""
    points = {
        (stage, kind): tuple(
            Point(clock, base * factor * (0.2 + 0.8 * 1400 / clock), base * factor * (150 + 250 * (clock / 1400) ** 2))
            for clock in CLOCKS
        )
        for stage, factor in enumerate(stages)
        for kind, base in (("F", 0.05), ("B", 0.1))
    }
    return Pipeline(one_f_one_b(len(stages), microbatches), Profile(points, 80.0))


def profiled(schedule: Schedule) -> Profile:
    """A profile of all that a schedule runs; no two kinds of no two stages last equally long."""
    kinds = {(one.stage, one.kind) for order in schedule.orders for one in order}
    points = {
        (stage, kind): tuple(
            Point(clock, base * (1400 / clock) ** 0.8, base * 400 * (clock / 1400)) for clock in CLOCKS
        )
        for stage, kind in kinds
        for base in (
            (0.01 + 0.0013 * stage) * (1 + (7 + int(kind[2:-2]) / 7 if "&" in kind else "XCWIFB".index(kind)) / 3),
        )
    }
    for stage in range(schedule.stages):  # a stage has all of a backward, whether the schedule runs it or not
        points.setdefault((stage, "B"), points[stage, "F"])
    return Profile(points, 80.0, {key for key in points if key[1] == "X"})


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any of the named schedules, of up to 4 ranks."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    chunks = draw(st.integers(1, 3)) if "interleaved" in name else 2 if name in ("zbv", "dualpipev") else 1
    stages = chunks * draw(st.integers(1, 4))
    microbatches = draw(st.integers(stages if name == "dualpipev" else 1, 10))
    try:
        return schedule_by_name(name, stages, microbatches, chunks)
    except ScheduleError:  # microbatches that don't make equal rounds
        return schedule_by_name(name, stages, stages, chunks)


@st.composite
def series(draw: st.DrawFn, clocks: tuple[int, ...]) -> tuple[Point, ...]:
    """A measured series: mostly slower and cheaper downwards, with noise that can turn both around."""
    seconds = draw(st.floats(0.01, 0.2))
    watts = draw(st.floats(100, 450))
    noise = st.floats(0.97, 1.03)
    return tuple(
        Point(
            clock,
            seconds * (clocks[0] / clock) ** draw(st.floats(0.2, 1.0)) * draw(noise),
            seconds * watts * (clock / clocks[0]) ** draw(st.floats(0.2, 1.5)) * draw(noise),
        )
        for clock in clocks
    )


@st.composite
def pipelines(draw: st.DrawFn, most_stages: int = 4, most_microbatches: int = 5) -> Pipeline:
    stages = draw(st.integers(1, most_stages))
    shape = draw(st.sampled_from((one_f_one_b, gpipe)))
    clocks = CLOCKS[: draw(st.integers(2, len(CLOCKS)))]
    points = {(stage, kind): draw(series(clocks)) for stage in range(stages) for kind in "FB"}
    delay = st.floats(0, 0.02)
    blocking = st.floats(0, 100) | st.fixed_dictionaries({1000: st.floats(30, 60), 1400: st.floats(60, 100)})
    schedule = shape(stages, draw(st.integers(1, most_microbatches)))
    single = st.sampled_from([one for order in schedule.orders for one in order])
    return Pipeline(
        schedule,
        Profile(points, draw(blocking)),
        transfer_s={edge: draw(delay) for s in range(stages - 1) for edge in ((s, s + 1, "F"), (s + 1, s, "B"))},
        overhead_s=draw(st.none() | st.dictionaries(st.sampled_from(sorted(points)), delay)),
        tail_s=draw(st.dictionaries(st.integers(0, stages - 1), st.floats(0, 0.3))),
        gap_s=draw(st.dictionaries(single, st.floats(0, 0.1), max_size=3)),
        extra_s=draw(st.dictionaries(single, st.floats(0, 0.1), max_size=3)),
    )


@st.composite
def clocked(draw: st.DrawFn) -> tuple[Pipeline, list[list[int | None]]]:
    """A pipeline and some supported clock for each of its instructions."""
    pipeline = draw(pipelines())
    clocks = sorted({point.clock_mhz for points in pipeline.profile.points.values() for point in points})
    choice = st.sampled_from([None, *clocks])
    return pipeline, [[draw(choice) for _ in order] for order in pipeline.schedule.orders]
