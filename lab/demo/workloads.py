"""What the demo can train: an example of `examples/`, the virtual GPUs that it is for, and the Python that it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import frameworks
from demo.published import PERSEUS_SAVINGS, RATED_POWER_W, beside_straggler, points_over_rated_power

__all__ = ["WORKLOADS", "Workload"]

_EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Workload:
    """A training; its job and its EnergyPlan bear its name, which several may have."""

    name: str
    example: Path
    """Holds the script, pytorchjob.yaml, energyplan.yaml and the Dockerfile of its image."""
    image: str
    gpus: Mapping[str, str]
    """How the virtual GPUs are laid, as options of `virtual_gpus init`."""
    iteration_s: float
    """An iteration at default clocks, at time scale 1."""
    note: str
    """What these GPUs are, for pictures and tables."""
    framework: str = ""
    """Of `lab/frameworks`, the environment that it trains with; empty for the one that this runs in."""
    published_savings: float | None = None
    """What was published about the same pipeline, as a fraction."""
    arguments: tuple[str, ...] = ()
    """Of the script, beside those of its manifest."""
    slower: float = 0.0
    """By how much the GPUs of the last node become slower once the plan is measured, as a share."""

    def python(self) -> tuple[Path, Path]:
        """Its interpreter, and the folder of the Python that its environment was made from."""
        if not self.framework:
            return Path(sys.executable), Path(sys.base_prefix)
        python = frameworks.environment(self.framework)
        asked = (str(python), "-c", "import sys; print(sys.base_prefix)")
        return python, Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())

    def published(self) -> float | None:
        """What was published about it, or follows of that, as a fraction saved."""
        return beside_straggler(1 + self.slower)[0] if self.slower else self.published_savings

    def notes(self) -> tuple[str, ...]:
        """What a reader must know of its numbers."""
        if self.slower:
            stretched, unstretched = beside_straggler(1 + self.slower)
            return (
                self.note,
                "Two replicas of its first four stages, one on each node, as this cluster has eight GPUs. Once "
                f"the plan is measured, those of one node take {1 + self.slower:g} times as long, and nobody is told.",
                "Nothing was published about these four stages. Of two pipelines of all eight, one of them slower by "
                f"as much, Perseus's published frontier saves {stretched:.1%}, {unstretched:.1%} where the other isn't "
                "stretched: that is computed, not measured.",
            )
        if self.published_savings is None:
            return (f"{self.note} How long a chunk takes and what it draws is made up.",)
        hot_points, all_points = points_over_rated_power()
        return (
            self.note,
            f"{hot_points} of {all_points} published points draw over the {RATED_POWER_W:.0f} W that an A100 SXM is "
            "rated for: they are averages of instructions much shorter than the time over which the driver holds the "
            "limit. They are replayed as published.",
            f"Published: Perseus saved {self.published_savings:.1%} at the shortest iteration time, computed on "
            "durations rounded to whole milliseconds.",
        )


_GPT3: Final = Workload(
    name="gpt3",
    example=_EXAMPLES / "01-pytorchjob",
    image="example-pytorchjob",
    gpus={"model": "replay", "profile": str(_EXAMPLES / "data/gpt3-175b_a100-sxm_stage-profile.csv")},
    iteration_s=2.837,
    note="Virtual GPUs that replay published data (GPT-3 175B on A100, SOSP'24); no GPU was measured.",
    published_savings=PERSEUS_SAVINGS,
)
_MEGATRON: Final = Workload(
    name="megatron",
    example=_EXAMPLES / "02-megatron",
    image="example-megatron",
    gpus={"model": "parametric", "spec": str(_EXAMPLES / "02-megatron/gpus.json")},
    iteration_s=1.6,
    note="Virtual GPUs with a model of an A100; no GPU was measured.",
    framework="megatron-0.16.1",
)
_STRAGGLER: Final = replace(_GPT3, iteration_s=2.2, arguments=("--stages", "4"), slower=0.2)
WORKLOADS: Final[Mapping[str, Workload]] = {"gpt3": _GPT3, "megatron": _MEGATRON, "straggler": _STRAGGLER}
"""What the demo trains, by what it is asked for."""
