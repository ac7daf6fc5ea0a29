"""Perseus's schedules (`freqs_pipeline_00000.py`): the clock of every instruction, rank by rank in its order.

Zeus's optimizer writes them and its server runs them (github.com/ml-energy/zeus, written by
`examples/pipeline_frequency_optimizer/run_optimization.py`, read by `PointSolution` of
`zeus/optimizer/pipeline_frequency/server/scheduler.py`): a Python list with a list for each rank, of `("forward", MHz)`
and `("backward", MHz)` in the order of 1F1B, then comments. The artifact of the paper (commit 38cb3f90,
`lowtime/scripts/perseus.py`) has the bare MHz. Both are read, as a literal: nothing in a file is ever executed.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from joulepath_planner.arguments import checked, fits, quoted
from joulepath_planner.errors import ArgumentError, ScheduleError
from joulepath_planner.inputs.instruction import KIND_NAMES, Instruction, is_pair, kind_name
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks, Schedule

__all__ = ["perseus_clocks", "perseus_text"]


@checked
def perseus_text(pipeline: Pipeline, clocks: Clocks) -> str:
    """A plan's clocks as Perseus writes them. Default clocks are written as the number that the profile has for them.

    Raises:
        ArgumentError: They are clocks of other instructions than the schedule's, or it has pairs.
    """
    orders = pipeline.schedule.orders
    if pair := next((one for order in orders for one in order if is_pair(one.kind)), None):
        raise ArgumentError(f"Perseus knows no pairs, such as {pair.label}; write the plan as JSON.")
    if [len(row) for row in clocks] != [len(order) for order in orders]:
        raise ArgumentError("the clocks are of other instructions than the schedule's; give one for each of its ranks.")
    rows = [
        [
            (KIND_NAMES[one.kind], clock or pipeline.profile.default_clock_mhz(one.stage))
            for one, clock in zip(order, row, strict=True)
        ]
        for order, row in zip(orders, clocks, strict=True)
    ]
    return "".join(["[\n", *(f"{row},\n" for row in rows), "]\n"])


@checked
def perseus_clocks(text: str, schedule: Schedule) -> Clocks:
    """The clocks of a schedule that Perseus wrote; the order is that of the schedule given.

    Raises:
        ScheduleError: It is no such schedule, or one of other instructions.
    """
    try:
        rows = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ScheduleError("it is no list of Python; Perseus writes one list for each rank.") from None
    if not fits(rows, list[list[object]]):
        raise ScheduleError(f"it is {quoted(rows)}; Perseus writes one list for each rank.")
    if len(rows) != len(schedule.orders):
        raise ScheduleError(
            f"it has clocks of {len(rows)} ranks, and the schedule {len(schedule.orders)}; plan for as many stages."
        )
    return tuple(_row(rank, row, order) for rank, (row, order) in enumerate(zip(rows, schedule.orders, strict=True)))


def _row(rank: int, row: Sequence[object], order: Sequence[Instruction]) -> tuple[int, ...]:
    if len(row) != len(order):
        raise ScheduleError(
            f"rank {rank} has {len(row)} clocks, and the schedule {len(order)} instructions; plan for as many "
            "microbatches."
        )
    found = []
    for entry, one in zip(row, order, strict=True):
        name, clock = entry if isinstance(entry, tuple) and len(entry) == 2 else (kind_name(one.kind), entry)
        if name != kind_name(one.kind):
            raise ScheduleError(
                f"rank {rank} has {quoted(entry)} where the schedule runs {one.label}; give the schedule that it was "
                "made for."
            )
        if not isinstance(clock, int):
            raise ScheduleError(f"rank {rank}: {quoted(entry)} is no clock; write MHz, or ('forward', MHz).")
        found.append(clock)
    return tuple(found)
