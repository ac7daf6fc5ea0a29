"""What a whole block took: its first iteration is left out, and of plan and control blocks the last one, too. Pure.

In the first one clocks are on their way to those of the block, at the end of the last one to those of the next block.
Evaluations are left out of both arms alike.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.run import Run
from joulepath_crds import Arm, BlockReport

__all__ = ["block_report", "measured_part"]


def measured_part(run: Run) -> Run:
    """Of a run that is a whole block, what its report is made of."""
    return run if run.applied.arm is Arm.SWEEP else replace(run, iterations=run.iterations[:-1])


def block_report(run: Run, trace: Trace) -> BlockReport | None:
    """The report of a run that is a whole block, which the trace covers; None if no iteration of it counts."""
    part = measured_part(run)
    counted = part.counted
    if not counted:
        return None
    periods_s = [iteration.period_s for iteration in counted]
    joules = sum(trace.joules_at(iteration.end_s) - trace.joules_at(iteration.begin_s) for iteration in counted)
    return BlockReport(
        hash=run.applied.hash,
        block=run.applied.block,
        arm=run.applied.arm,
        iterations=len(counted),
        sort=part.sort,
        iteration_time_s=statistics.fmean(periods_s),
        iteration_time_deviation_s=statistics.stdev(periods_s) if len(periods_s) > 1 else 0.0,
        energy_per_iteration_j=max(0.0, joules) / len(counted),
        switched=run.applied.arm is Arm.SWEEP and run.applied.clock_mhz is None,
    )
