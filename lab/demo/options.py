"""What the demo can be asked for."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.workloads import WORKLOADS, Workload
from joulepath_crds import Granularity

__all__ = ["GPUS_PER_NODE", "Options", "parse"]

GPUS_PER_NODE: Final = 4
_TRAINING_S: Final = 320.0
_LEAST_STEPS: Final = 250
"""Fewer leave no room for a sweep of 12 clocks, the trial of what switches cost, and 8 pairs of blocks."""
_MORE_STEPS: Final = 200
"""To measure beside a straggler as well."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    workload: Workload = WORKLOADS["gpt3"]
    time_scale: float = 1.0
    lag_ms: float = 10.0
    mode: str = "Enforce"
    granularity: str = "auto"
    injection: str = "nri"
    keep: bool = False
    cluster: str = "local"
    out: Path = Path("demo-out")
    steps: int = 0
    registry: str = "joulepath.local"
    gpu_kind: str = "virtual"
    training_image: str = ""
    python: Path = Path("/opt/python/bin/python")
    python_folder: tuple[Path, ...] = ()
    runtime_class: str = ""
    values: tuple[Path, ...] = ()

    @property
    def training_steps(self) -> int:
        """As asked for, else so many that the training takes five minutes, or as many as it needs."""
        parts = 2 if self.workload.slower else 1  # it is measured twice
        training_s = parts * _TRAINING_S / (self.workload.iteration_s * self.time_scale)
        return self.steps or max(_LEAST_STEPS + (parts - 1) * _MORE_STEPS, math.ceil(training_s))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads the command line; ends the process with status 2 if it makes no sense."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Joulepath's main job on a real cluster of two nodes with virtual A100: a pipeline is trained, "
        "profiled, planned, and its savings measured. Needs root; builds all it needs.",
    )
    add = parser.add_argument
    workloads = (
        "the published GPT-3 pipeline; a GPT of Megatron-core, interleaved; or two replicas of half of GPT-3's, one of "
        "which is held up (%(default)s)"
    )
    add("--workload", choices=tuple(WORKLOADS), default=default.workload.name, help=workloads)
    add("--time-scale", type=float, default=default.time_scale, help="all times by this factor (%(default)s)")
    add("--lag-ms", type=float, default=default.lag_ms, help="lag of a clock change at time scale 1 (%(default)s)")
    add(
        "--mode", choices=("Enforce", "Observe"), default=default.mode, help="Observe leaves the clocks alone: null run"
    )
    add("--granularity", choices=tuple(Granularity), default=default.granularity, help="(%(default)s)")
    add(
        "--injection",
        choices=("nri", "volumes"),
        default=default.injection,
        help="by the nodes' runtime, in a namespace at Pod Security level restricted, or by the webhook (%(default)s)",
    )
    add("--keep", action="store_true", help="leave all up at the end and print URLs and KUBECONFIG")
    add("--out", type=Path, default=default.out, help="folder of the report (%(default)s)")
    add("--steps", type=int, default=0, help="training steps (default: 250 or more, as many as a report takes)")
    add("--cluster", choices=("local", "current"), default=default.cluster, help="current: that of your kubeconfig")
    current = parser.add_argument_group("with --cluster current")
    add = current.add_argument
    add("--registry", default=default.registry, help="where the images operator and agent are (%(default)s)")
    add("--gpu-kind", choices=("virtual", "nvidia"), default=default.gpu_kind, help="what the nodes have (%(default)s)")
    image = "image with the training script (default: REGISTRY/example-pytorchjob:1, or example-megatron:1)"
    add("--training-image", default="", help=image)
    add("--python", type=Path, default=default.python, help="Python with torch, as the nodes see it (%(default)s)")
    folders = "folder of the nodes that Python needs, may be given again (default: the environment of --python)"
    add("--python-folder", type=Path, action="append", default=[], help=folders)
    add("--runtime-class", default="", help="runtime class of the agent, usually nvidia for --gpu-kind nvidia")
    add("--values", type=Path, action="append", default=[], help="values file for the chart, may be given again")
    parsed = parser.parse_args(arguments)
    parsed.python_folder, parsed.values = tuple(parsed.python_folder), tuple(parsed.values)
    parsed.workload = WORKLOADS[parsed.workload]
    options = Options(**vars(parsed))
    if not 0.05 <= options.time_scale <= 10:
        parser.error(f"--time-scale must be from 0.05 to 10, it is {options.time_scale:g}")
    if missing := [path for path in options.values if not path.is_file()]:
        parser.error(f"--values {missing[0]} is no file")
    if 0 < options.steps < _LEAST_STEPS:
        print(f"{options.steps} steps are too few for a report: its savings take {_LEAST_STEPS}.", file=sys.stderr)
    if options.workload.slower and (options.cluster, options.mode) != ("local", "Enforce"):
        parser.error(
            "--workload straggler needs --cluster local, as only virtual GPUs become slower when they are told to, and "
            "--mode Enforce, as nobody is stretched without clocks"
        )
    if not 0 <= options.lag_ms <= 1000:
        parser.error(f"--lag-ms must be from 0 to 1000, it is {options.lag_ms:g}")
    return options
