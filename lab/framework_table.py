"""The trainings by frameworks that are tried, and their table in `docs/frameworks.md`; `make reference` writes it.

A row is the parameter of a test that runs the training and compares what is told of it with what ran, so that nothing
stands in the table that no test has run. How near the model comes to it and what a plan saved are read from
`benchmarks/results`, where `benchmarks/trainer.py` and `benchmarks/closed_loop.py` leave it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import frameworks

__all__ = ["MODELS", "PATH", "PLAYED", "ROWS", "Row", "row_of", "rows", "text"]

_ROOT: Final = Path(__file__).parents[1]
PATH: Final = _ROOT / "docs/frameworks.md"
MODELS: Final = _ROOT / "benchmarks/results/trainer.json"
PLAYED: Final = _ROOT / "benchmarks/results/frameworks.json"
_BEGIN, _END = "<!-- The table, by `make reference` -->\n", "<!-- The table ends -->\n"
_BELOW: Final = "[below](#planned-and-played-without-a-cluster)"
_HEAD: Final = """\
| framework | training | told | model | planned and played |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A training that is tried."""

    kind: str
    """Whose scenarios of the tests train it."""
    framework: str
    """With its version."""
    training: str
    told: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the scenario."""
    environment: str | None = None
    """One of `locks/frameworks`; else this one."""
    modelled: bool = False
    """Whether `benchmarks/trainer.py` holds the model to it."""
    played: str = ""
    """What plays it on a cluster, or where it is told how it was."""

    @property
    def name(self) -> str:
        """In results and tests."""
        return f"{self.framework}, {self.training}"


def rows(kind: str) -> list[Row]:
    """Those of some scenarios."""
    return [row for row in ROWS if row.kind == kind]


def row_of(kind: str, environment: str | None, options: Mapping[str, Any]) -> Row | None:
    """That of a training, if there is one."""
    found = (one for one in rows(kind) if (one.environment, one.options) == (environment, options))
    return next(found, None)


def text() -> str:
    """The whole file, with the table as it is now."""
    before, _, rest = PATH.read_text().partition(_BEGIN)
    return before + _BEGIN + _HEAD + "".join(map(_line, ROWS)) + _END + rest.partition(_END)[2]


def _line(row: Row) -> str:
    model = {one["case"]: one["error"] for one in _result(MODELS, "models")}.get(row.name)
    off = "not asked" if not row.modelled else "not measured" if model is None else f"{model:+.2%}"
    played = {one["case"]: one for one in _result(PLAYED, "runs")}.get(row.name)
    how = [row.played] if row.played else []
    if played is not None and "savings" in played:
        saved, slower = (_interval(played[what]) for what in ("savings", "slowdown"))
        planned = played["predicted_savings"]
        how.append(f"{planned:.1%} planned, {saved} saved, iterations {slower} longer, without a cluster")
    return f"| {row.framework} | {row.training} | {row.told} | {off} | {'; '.join(how) or 'not itself'} |\n"


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['mean']:.1%} ± {50 * (high - low):.1f}"


def _result(path: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())[name] if path.exists() else []
    return found


def _pinned(lock: Path, package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", lock.read_text(), re.MULTILINE)
    assert found is not None, f"{lock} doesn't pin {package}"
    return found[1]


def _environments(prefix: str, name: Callable[[str], str]) -> Iterable[tuple[str, str]]:
    """Environments with a framework, and what it is called with its version."""
    return [(one, name(one.rpartition("-")[2])) for one in frameworks.names(prefix)]


def _torch() -> Iterable[Row]:
    newest = f"torch {_pinned(_ROOT / 'locks/dev.txt', 'torch')}"
    for schedule in ("Schedule1F1B", "ScheduleGPipe"):
        demo = "`make demo`" if schedule == "Schedule1F1B" else ""
        yield Row("torch", newest, f"`{schedule}`", "instructions", {"schedule": schedule}, None, True, demo)
    for schedule in ("Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"):
        options = {"schedule": f"Schedule{schedule}", "chunks": 2}
        below = "" if schedule == "InterleavedZeroBubble" else _BELOW
        yield Row("torch", newest, f"`Schedule{schedule}`", "instructions", options, None, True, below)
    for environment, called in _environments("torch", lambda version: f"torch {version}"):
        for words, options in (
            ("`Schedule1F1B`", {"schedule": "Schedule1F1B", "rounds": 1}),
            ("`ScheduleGPipe`, gradients accumulated", {"schedule": "ScheduleGPipe", "rounds": 3}),
        ):
            yield Row("torch_version", called, words, "instructions, of one rank", options, environment)
    yield Row("passes", newest, "DDP", "forward and backward", {"kind": "ddp"}, played="`test_replicas.py`")
    yield Row("passes", newest, "FSDP2", "forward and backward", {"kind": "fsdp"})


def _megatron() -> Iterable[Row]:
    for environment, called in _environments("megatron", lambda version: f"Megatron-core {version}"):
        for words, options in (
            ("1F1B", {}),
            ("1F1B, batched exchanges", {"batched": True}),
            ("interleaved", {"chunks": 2}),
            ("interleaved, batched exchanges", {"chunks": 2, "batched": True}),
        ):
            played = _BELOW if environment == "megatron-0.16.1" else ""
            if played and words == "interleaved":
                played = f"`make demo WORKLOAD=megatron`; {played}"
            yield Row("megatron", called, words, "instructions", options, environment, True, played)
        yield Row("megatron_alone", called, "without a pipeline", "forward and backward", {}, environment)


def _deepspeed() -> Iterable[Row]:
    for environment, called in _environments("deepspeed", lambda version: f"DeepSpeed {version}"):
        below = _BELOW if environment == "deepspeed-0.19.8" else ""
        yield Row("deepspeed", called, "`PipelineEngine`", "instructions", {}, environment, True, below)
        for zero in range(4):
            options = {"zero": zero}
            yield Row("zero", called, f"ZeRO {zero}", "forward and backward", options, environment)


def _trainers() -> Iterable[Row]:
    told = "forward and backward"
    for environment, called in _environments("transformers", lambda version: f"transformers {version}"):
        yield Row("transformers", called, "Hugging Face Trainer", told, {"scenario": "train_by_trainer"}, environment)
        accelerate = _pinned(_ROOT / f"locks/frameworks/{environment}.txt", "accelerate")
        options = {"scenario": "train_by_accelerate"}
        yield Row("transformers", f"Accelerate {accelerate}", "DDP", told, options, environment)
    for environment, called in _environments("lightning", lambda version: f"Lightning {version}"):
        yield Row("lightning", called, "DDP", told, {"scenario": "train"}, environment)


ROWS: Final = (*_torch(), *_megatron(), *_deepspeed(), *_trainers())


if __name__ == "__main__":
    PATH.write_text(text())
