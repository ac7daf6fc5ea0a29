"""EnergyProfile: what a job's instructions cost at each clock, measured. It outlives the job."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from joulepath_crds.contract import Contract, Name, Text, list_by
from joulepath_crds.labels import InstructionKind
from joulepath_crds.nodereport import SwitchingLag
from joulepath_crds.topology import Topology

__all__ = [
    "BlockingPower",
    "EnergyProfileSpec",
    "KindProfile",
    "Origin",
    "ProfilePoint",
    "Reuse",
    "StageProfile",
    "SwitchingCost",
    "Transfer",
]


class ProfilePoint(Contract):
    """One kind of instruction of one stage at one clock, one GPU."""

    clock_mhz: Annotated[int, Field(gt=0)]
    """SM clock in force, in MHz."""
    time_s: Annotated[float, Field(gt=0)]
    """Mean seconds of the instruction."""
    time_standard_error_s: Annotated[float, Field(ge=0)] = 0.0
    """Standard error of that mean, in seconds."""
    energy_j: Annotated[float, Field(ge=0)]
    """Mean joules of the instruction."""
    energy_standard_error_j: Annotated[float, Field(ge=0)] = 0.0
    """Standard error of that mean, in joules."""
    samples: Annotated[int, Field(ge=0)] = 0
    """Instructions measured."""


class KindProfile(Contract):
    """All clocks of one kind of instruction."""

    kind: InstructionKind
    """F forward, B full backward, I input gradient, W weight gradient; F&7:B a forward that runs interleaved with a
    backward of stage 7, as one instruction."""
    points: Annotated[tuple[ProfilePoint, ...], Field(max_length=400)]
    """One point a clock."""


class StageProfile(Contract):
    """All kinds of one stage."""

    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    tail_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds from its last instruction to its next iteration: gradient reduction and optimizer, at default clocks."""
    kinds: Annotated[tuple[KindProfile, ...], Field(max_length=64)]
    """One entry a kind."""


class Transfer(Contract):
    """The least delay from the end of an instruction on one stage to the begin of its dependent on another."""

    from_stage: Annotated[int, Field(ge=0)]
    """The stage that sends."""
    to_stage: Annotated[int, Field(ge=0)]
    """The stage that receives."""
    kind: InstructionKind
    """Kind of the instruction whose result is sent."""
    delay_s: Annotated[float, Field(ge=0)]
    """Seconds."""


class BlockingPower(Contract):
    """Watts of a GPU that waits for a peer."""

    clock_mhz: Annotated[int, Field(gt=0)]
    """SM clock in force, in MHz."""
    power_w: Annotated[float, Field(ge=0)]
    """Watts."""


class SwitchingCost(Contract):
    """What it cost the job that clocks went to and fro with each instruction, beside blocks that held either clock.
    Each figure has half its 95% interval beside it."""

    clocks_mhz: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2, max_length=2)]
    """The two clocks, in MHz, neighbours in what the GPUs support: work is as good as the same at both."""
    longer_s: float
    """Seconds by which an iteration lasted longer."""
    longer_half_s: Annotated[float, Field(ge=0)]
    """Half the 95% interval of that, in seconds."""
    more_j: float
    """Joules that an iteration took more, all GPUs of the job together."""
    more_half_j: Annotated[float, Field(ge=0)]
    """Half the 95% interval of that, in joules."""


class Reuse(StrEnum):
    """What became of a profile of an earlier run."""

    CHECKED = "Checked"
    REUSED = "Reused"
    REFRESHED = "Refreshed"
    REFUSED = "Refused"


class Origin(Contract):
    """A profile of an earlier run that a run began with."""

    profile: Name
    """Name of that EnergyProfile."""
    reuse: Reuse
    """Checked: a few of its clocks are being measured again. Reused: its points are used as they are. Refreshed: they
    give the shape, and what was measured since the rest. Refused: all is measured anew."""
    message: Text = ""
    """How far it was off, or why it was refused."""


class EnergyProfileSpec(Contract):
    """What was measured, and on what."""

    topology: Topology
    """The pipeline that was measured."""
    stages: Annotated[tuple[StageProfile, ...], Field(max_length=1024, json_schema_extra=list_by("stage"))]
    """One entry a stage."""
    transfers: Annotated[tuple[Transfer, ...], Field(max_length=8192)] = ()
    """Delays between stages."""
    blocking_power: Annotated[tuple[BlockingPower, ...], Field(max_length=400)]
    """Power of a waiting GPU, by clock."""
    iteration_time_s: Annotated[float, Field(gt=0)]
    """Measured seconds of an iteration at default clocks."""
    iteration_time_noise_s: Annotated[float, Field(ge=0)] = 0.0
    """How much of a difference to that is no difference, in seconds: half the 95% confidence interval of its mean, plus
    the standard deviation of an iteration."""
    energy_per_iteration_j: Annotated[float, Field(ge=0)]
    """Measured joules of such an iteration, all GPUs of one pipeline together."""
    frontier_uncertainty: Annotated[float, Field(ge=0)] | None = None
    """Half the 95% interval of the frontier's energy where it is known least, as a fraction of it; absent where that
    could not be told."""
    lag: SwitchingLag | None = None
    """How long the slowest of the GPUs took to change its clock; absent where it was not measured on each of them."""
    switching: SwitchingCost | None = None
    """What switches of clock cost by themselves; absent where that wasn't tried."""
    job: Name = ""
    """Name of the job in which it was measured."""
    driver: Annotated[str, Field(max_length=64)] = ""
    """Version of the GPUs' driver at that time; empty where that is not known."""
    power_cap_w: Annotated[float, Field(ge=0)] | None = None
    """Watts that each GPU was held to; absent where that is not known."""
    origin: Origin | None = None
    """The profile of an earlier run that this one began with; absent where there was none."""

    @property
    def default_clock_mhz(self) -> int:
        """What default clocks amounted to where this was measured: the highest clock of its points."""
        clocks = (point.clock_mhz for stage in self.stages for kind in stage.kinds for point in kind.points)
        top_mhz = self.topology.default_clock_mhz
        return max((clock for clock in clocks if clock <= top_mhz), default=top_mhz)
