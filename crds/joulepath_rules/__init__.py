"""What operator and nodes must agree on and is no object of an API: instructions, plans as values, arms. No others'
packages: the process that sets clocks imports it.

- `instructions`: what a rank computes, by name
- `digest`: SHA-256 as both sides compute it
- `plan`: a plan as values, and what a rank does with one
- `arms`: which iterations run what
- `counting`: which iterations of a block count
- `mounts`: which mounts of a container meet ours
- `applied`: what an iteration ran
- `jobs`: kinds of training job by their names, and which job a pod belongs to
"""

from __future__ import annotations

from joulepath_rules.applied import Applied
from joulepath_rules.arms import Arm, SweptBlocks, Timetable, arm_of, clock_in_turn, held_clock_mhz, next_boundary
from joulepath_rules.counting import Length, Sort, counted
from joulepath_rules.digest import sha256
from joulepath_rules.instructions import INSTRUCTION_KINDS, PAIR, PAIR_KIND, Instruction
from joulepath_rules.jobs import JOB_LABELS, JOB_NAMES, JobKindName, JobName, by_labels, controller, maker
from joulepath_rules.mounts import lexical, meets
from joulepath_rules.plan import MARGIN, TAIL_LAGS, Blocks, Plan, Purpose, RankState, StagePlan, Sweep

__all__ = [
    "INSTRUCTION_KINDS",
    "JOB_LABELS",
    "JOB_NAMES",
    "MARGIN",
    "PAIR",
    "PAIR_KIND",
    "TAIL_LAGS",
    "Applied",
    "Arm",
    "Blocks",
    "Instruction",
    "JobKindName",
    "JobName",
    "Length",
    "Plan",
    "Purpose",
    "RankState",
    "Sort",
    "StagePlan",
    "Sweep",
    "SweptBlocks",
    "Timetable",
    "arm_of",
    "by_labels",
    "clock_in_turn",
    "controller",
    "counted",
    "held_clock_mhz",
    "lexical",
    "maker",
    "meets",
    "next_boundary",
    "sha256",
]
