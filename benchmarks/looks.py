"""What a look of the operator takes at a large job, by ranks and microbatches: CPU seconds, from reports made in memory.

    python -m benchmarks.looks [--write]

A look gathers what the index knows of a job and decides. In steady state a plan is in force, its pairs are sparse, and
all that a new report changes is the iteration. Beside that: the look at which a survey is asked for, which is once a
round, its request on its way to the planner's process, and what is learnt of it there. Replicas share one timeline here,
so that it fits in memory; a real report has its own.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from joulepath_crds import (
    Arm,
    BlockReport,
    Blocks,
    Coordinates,
    EnergyPlanSpec,
    EnergyPlanStatus,
    EnergyProfileSpec,
    GpuReport,
    InstructionMeasurement,
    InstructionTime,
    JobPlanSpec,
    JobReport,
    Phase,
    PlanSummary,
    Granularity,
    Purpose,
    RankReport,
    WaitMeasurement,
    content_hash,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import Decision, NodeJob, Observation, StoredPlan, StoredProfile, TrainingJob
from joulepath_operator.figures.clocks import make_sweep
from joulepath_operator.planning.child import learnt
from joulepath_operator.story.decide import decide
from joulepath_planner import Pipeline, one_f_one_b, simulate
from tests.planner.pipelines import gpt3
