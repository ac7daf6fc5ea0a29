"""Savings and slowdown of the whole control loop, by switching lag: the example's training, trainer, agent, the
operator's decisions and the planner, on one node of eight virtual GPUs and without Kubernetes.

    python benchmarks/closed_loop.py --lag-ms 5 10 20 100 [--time-scale 0.55] [--detail FILE]
    python benchmarks/closed_loop.py --slow-targets 900-1100 [--two-numbers]
    python benchmarks/closed_loop.py --pause-ms 0 10
    python benchmarks/closed_loop.py --framework megatron --options '{"chunks": 2}' [--environment megatron-0.16.1]
    python benchmarks/closed_loop.py --framework torch --options '{"schedule": "ScheduleZBVZeroBubble", "chunks": 2}'
    python benchmarks/closed_loop.py --framework replicas --options '{"microbatches": 2}' --slowdown 5
    python benchmarks/closed_loop.py --straggler 1.2 [--stages 4] [--only 3] --lag-ms 10

Each line of the result is one run: the job is profiled by a sweep, planned, and measured in interleaved plan and
control blocks, by the same code and rules as on a cluster. A replay of published data on virtual GPUs, no GPU
measurement. Writes benchmarks/results/closed_loop.json. With --slow-targets, to which switches take 60 ms, the operator
is told lags by target, or two numbers as by an older agent; with --pause-ms switches hold up a GPU's work for so long,
and benchmarks/results/pauses.json is written; with --framework it is the schedules of Megatron-core,
DeepSpeed or torch that train, on four GPUs with stages of different length, or replicas without a pipeline (torch's
DDP), on two. Of a training that stands in docs/frameworks.md's table the last run is kept in
benchmarks/results/frameworks.json; else, and with --slow-targets, nothing is written. With --straggler the example
trains in two replicas; once its plan is measured, the GPUs of one (or `--only` that of one stage) become slower, which
is found (or announced, `--announce`), and the others are stretched; benchmarks/results/straggler.json has both savings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import frameworks
from framework_table import PLAYED, Row, row_of
from joulepath_crds import (
    EnergyPlanSpec,
    EnergyPlanStatus,
    Granularity,
    JobReference,
    Measurement,
    NodeReportStatus,
    Phase,
)
from joulepath_operator.facts.observation import NodeJob, Observation, Pod, TrainingJob
from joulepath_operator.facts.request import PlanRequest, PlanResult
from joulepath_operator.planning.child import answer as answer_to
from joulepath_operator.story.decide import decide
from real_cluster import cores_awake
from virtual_gpus import model, state
from virtual_gpus.build import library_dir

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "examples/data/gpt3-175b_a100-sxm_stage-profile.csv"
LONGEST_S = 1800.0
_RANKS = 4
"""Of a framework's pipeline."""


@dataclass(slots=True)
class Loop:
    """The operator's part: the state that a cluster would hold, in memory."""

    agent: subprocess.Popen[str]
    spec: EnergyPlanSpec
    two_numbers: bool = False
    seen: Observation = field(init=False)

    def __post_init__(self) -> None:
        self.seen = Observation(
            "default", "plan", 1, self.spec, EnergyPlanStatus(), "2026-01-01T00:00:00Z",
            job=TrainingJob("job-uid", "job", "plan", None), pods=(Pod("job-0"),),
        )  # fmt: skip

    def turn(self) -> NodeReportStatus:
        """One reconciliation."""
        report = report_of(self.agent)
        if self.two_numbers:
            bare = [gpu.lag and gpu.lag.model_copy(update={"targets": None}) for gpu in report.gpus]
            gpus = zip(report.gpus, bare, strict=True)
            report = report.model_copy(update={"gpus": tuple(g.model_copy(update={"lag": lag}) for g, lag in gpus)})
        nodes = tuple(NodeJob("node", job, report.gpus) for job in report.jobs)
        self.seen = replace(self.seen, nodes=nodes)
        decision = decide(self.seen)
        plans = {one.name: one for one in self.seen.plans if one.name not in decision.delete_plans}
        if decision.write_plan is not None:
            plans[decision.write_plan.name] = replace(decision.write_plan, version="1")
        profiles = self.seen.profiles
        if decision.write_profile is not None:
            profiles = (replace(decision.write_profile, version="1"),)
        if tuple(plans.values()) != self.seen.plans:
            say(self.agent, {"plans": [one.spec.to_api() for one in plans.values()]})
        asked = decision.ask_planner
        answer = answer_to(asked) if asked is not None else self.seen.planned
        self.seen = replace(
            self.seen, status=decision.status, plans=tuple(plans.values()), profiles=profiles,
            asked=asked or self.seen.asked, planned=answer,
        )  # fmt: skip
        return report


def say(agent: subprocess.Popen[str], command: dict[str, Any]) -> None:
    """A line to an agent."""
    assert agent.stdin is not None
    agent.stdin.write(json.dumps(command) + "\n")
    agent.stdin.flush()


def report_of(agent: subprocess.Popen[str]) -> NodeReportStatus:
    """What it reports now."""
    assert agent.stdout is not None
    say(agent, {"report": True})
    return NodeReportStatus.from_api(json.loads(agent.stdout.readline()))


@contextmanager
def node(
    folder: Path,
    gpus: model.Model,
    count: int,
    scale: float,
    lag_ms: float,
    slow_targets: str = "",
    pause_ms: float = 0.0,
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Virtual GPUs, a warden and an agent; the environment in which training processes find both."""
    path = folder / "gpus" / "state"
    options = state.Options(
        gpus=count, node="bench", time_scale=scale, lag_ms=lag_ms, slow_targets=slow_targets, pause_ms=pause_ms,
        root_only=False,
    )  # fmt: skip
    state.create(path, gpus, options)
    environment = {
        **os.environ,
        "VIRTUAL_GPUS_STATE": str(path),
        "NVIDIA_VISIBLE_DEVICES": "all",
        "LD_LIBRARY_PATH": str(library_dir()),
        "OMP_NUM_THREADS": "1",
    }
    socket = folder / "agent.sock"
    command = [sys.executable, str(ROOT / "lab/local_agent.py"), "--socket", str(socket)]
    command += ["--state-dir", str(folder / "journal"), "--pod", f"pod={','.join(state.uuids(path))}"]
    log = (folder / "agent.log").open("w")
    warden = subprocess.Popen(
        [sys.executable, "-m", "joulepath_warden", "--state-dir", str(folder / "journal")], stderr=log, env=environment
    )
    agent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    assert agent.stdout is not None
    agent.stdout.readline()
    bootstrap = ROOT / "agent/joulepath_trainer/bootstrap"
    try:
        yield agent, {**environment, "PYTHONPATH": str(bootstrap), "JOULEPATH_SOCKET": str(socket), "POD_UID": "pod"}
    finally:
        for process in (agent, warden):
            process.terminate()
            process.wait(30)


@dataclass(frozen=True, slots=True)
class Training:
    """What is started on the GPUs."""

    gpus: model.Model
    ranks: int
    python: Path
    script: tuple[str, ...]


def example() -> Training:
    """The example's, on GPT-3's published profile."""
    script = (str(ROOT / "examples/01-pytorchjob/train.py"), "--steps", "100000")
    return Training(model.replay(PROFILE), 8, Path(sys.executable), script)


def replicated(stages: int) -> Training:
    """The example's in two replicas of so many stages."""
    made = example()
    return replace(made, ranks=2 * stages, script=(*made.script, "--stages", str(stages)))


def of_framework(name: str, environment: str | None, options: dict[str, Any]) -> Training:
    """A framework's, in its newest environment or in this one; options are those of its scenario."""
    scales = [1.0, 0.6, 0.75, 0.9, 0.55, 0.7, 0.8, 0.65][: _RANKS * options.get("chunks", 1)]
    seconds = {"F": 0.08, "B": 0.16, "I": 0.08, "W": 0.08}
    seconds |= {f"F&{stage}:B": 0.15 + 0.05 * scale for stage, scale in enumerate(scales)}
    gpus = model.parametric({"stage_scale": tuple(scales), "seconds": seconds})
    if name == "torch":
        python = Path(sys.executable)
    else:
        python = frameworks.environment(environment or frameworks.names(name)[-1])
        options = {"pipeline": _RANKS, **options}
    order = json.dumps({"microbatches": 8, **options})
    return Training(gpus, _RANKS, python, ("-m", f"tests.trainer.frameworks.{name}_scenarios", order))


def replicas(options: dict[str, Any]) -> Training:
    """Those of torch's DDP, without a pipeline."""
    gpus = model.parametric({"stage_scale": (1.0,), "seconds": {"F": 0.1, "B": 0.2}})
    script = ("-m", "tests.trainer.frameworks.pass_scenarios", json.dumps(options))
    return Training(gpus, 2, Path(sys.executable), script)


def _iteration(loop: Loop) -> int:
    return max((rank.iteration for node in loop.seen.nodes for rank in node.report.ranks), default=0)


def beside_straggler(made: Training, lag_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """Savings of the plan that all play, then of the whole job while its second replica is slower."""
    stages, slowdown, pairs = made.ranks // 2, options.straggler, options.pairs
    slow = [stages + options.only] if options.only is not None else range(stages, 2 * stages)
    told = {"rank": slow[0]} if options.only is not None else {"replica": 1}
    spec = EnergyPlanSpec(job=JobReference(name="job"), measurement=Measurement(pairs=32))
    result: dict[str, Any] = {
        "slowdown": slowdown,
        "announced": options.announce,
        **told,
        "replicas": 2,
        "stages": stages,
        "lag_ms": lag_ms,
    }
    with trained(made, options.time_scale, lag_ms) as (agent, gpus):
        loop = Loop(agent, spec)

        def follow(until: Callable[[EnergyPlanStatus], bool]) -> EnergyPlanStatus:
            said, limit = "", time.monotonic() + LONGEST_S
            while not until(status := loop.seen.status):
                if status.phase is Phase.REFUSED or time.monotonic() > limit:
                    raise RuntimeError(f"it is {status.phase}: {status.message}")
                if status.message != said:
                    said = status.message
                    print(f"  {time.monotonic():.0f} {status.phase}: {said}", flush=True)
                time.sleep(0.2)
                loop.seen = replace(loop.seen, now=datetime.now(UTC).isoformat(timespec="seconds"))
                loop.turn()
            return status

        def measured(status: EnergyPlanStatus) -> bool:
            return status.measured is not None and status.measured.pairs >= pairs

        alone = follow(measured)
        for gpu in slow:
            state.break_gpu(gpus, gpu, slower=slowdown - 1)
        job, began, at = loop.seen.job, time.monotonic(), _iteration(loop)
        assert job is not None
        if options.announce:
            loop.seen = replace(loop.seen, job=replace(job, straggler=json.dumps(told | {"slowdown": slowdown})))
        follow(lambda status: status.straggler is not None)
        result["known_after"] = {"s": time.monotonic() - began, "iterations": _iteration(loop) - at}
        follow(lambda status: status.straggler is not None and status.straggler.hash is not None)
        result["stretched_after_s"] = time.monotonic() - began
        held = follow(measured)
        for gpu in slow:
            state.break_gpu(gpus, gpu)
        began = time.monotonic()
        loop.seen = replace(loop.seen, job=job)
        follow(lambda status: status.straggler is None)
        result["over_after_s"] = time.monotonic() - began
        follow(lambda status: status.phase is Phase.ACTIVE)
        result["back_after_s"] = time.monotonic() - began
    assert held.straggler is not None
    result["predicted"] = held.straggler.predicted_savings
    result["predicted_unstretched"] = held.straggler.predicted_unstretched
    result["alone"], result["beside"] = (
        {
            what: {"mean": one.mean, "ci95": [one.ci95_low, one.ci95_high]}
            for what, one in (
                ("savings", status.measured.savings),
                ("slowdown", status.measured.slowdown),
                ("control_s", status.measured.control.iteration_time_s),
                ("plan_s", status.measured.plan.iteration_time_s),
            )
        }
        for status in (alone, held)
        if status.measured is not None
    )
    return result


@contextmanager
def trained(
    made: Training, scale: float, lag_ms: float, slow_targets: str = "", pause_ms: float = 0.0
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The agent of a node where that training runs, and its virtual GPUs."""
    with (
        tempfile.TemporaryDirectory() as name,
        node(Path(name), made.gpus, made.ranks, scale, lag_ms, slow_targets, pause_ms) as (agent, environment),
    ):
        command = [str(made.python), "-m", "torch.distributed.run", "--nproc-per-node", str(made.ranks), *made.script]
        environment["PYTHONPATH"] += f":{ROOT / 'lab'}:{ROOT}"
        environment |= frameworks.variables(made.python)
        training = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
        )
        try:
            yield agent, Path(name) / "gpus" / "state"
        finally:
            with suppress(ProcessLookupError):
                training.terminate()
            training.wait(30)


def run(made: Training, lag_ms: float, pause_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """One training under control, until so many pairs of blocks are measured, or nothing is to be saved."""
    spec = EnergyPlanSpec(
        job=JobReference(name="job"),
        granularity=Granularity(options.granularity),
        max_slowdown_percent=options.slowdown,
        measurement=Measurement(pairs=options.pairs),
    )
    with trained(made, options.time_scale, lag_ms, options.slow_targets, pause_ms) as (agent, _):
        loop = Loop(agent, spec, options.two_numbers)
        told = ""
        limit = time.monotonic() + LONGEST_S
        while time.monotonic() < limit:
            report = loop.turn()
            status = loop.seen.status
            if status.message != told:
                told = status.message
                print(f"  lag {lag_ms:g} ms: {status.phase}: {told}", flush=True)
            measured = status.measured
            if status.phase in (Phase.REFUSED, Phase.IDLE) or (
                measured is not None and measured.pairs >= spec.measurement.pairs
            ):
                break
            time.sleep(0.5)
        if options.detail is not None:
            plans = [one.spec.to_api() for one in loop.seen.plans]
            options.detail.write_text(
                json.dumps({"report": report.to_api(), "plans": plans, "status": status.to_api()})
            )
    plan = status.plan
    result: dict[str, Any] = {"lag_ms": lag_ms, "phase": str(status.phase), "message": status.message}
    if plan is not None:
        result |= {"granularity": str(plan.granularity), "predicted_savings": plan.predicted_savings}
        if plan.switch_s is not None:
            result |= {"pause_ms": pause_ms, "switch_s": plan.switch_s, "switch_half_s": plan.switch_half_s}
    if isinstance(answer := loop.seen.planned, PlanResult):
        result["model_error"] = answer.t_min_s / answer.control_time_s - 1
    if isinstance(asked := loop.seen.asked, PlanRequest):
        result["exchanges"] = repr(asked.delays.exchanges)
    if status.measured is not None:
        for what in ("savings", "slowdown"):
            figure = getattr(status.measured, what)
            result[what] = {"mean": figure.mean, "ci95": [figure.ci95_low, figure.ci95_high]}
    return result


def keep(row: Row, played: dict[str, Any]) -> None:
    """Of the table's trainings, one was played."""
    before = json.loads(PLAYED.read_text())["runs"] if PLAYED.exists() else []
    kept = [one for one in before if one["case"] != row.name]
    PLAYED.write_text(json.dumps({"virtual": True, "runs": [*kept, {"case": row.name} | played]}, indent=1) + "\n")


def main() -> None:
    """Runs each lag once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lag-ms", type=float, nargs="+", default=[5, 10, 20, 100])
    parser.add_argument("--slow-targets", default="", help="clocks, in MHz, to which switches take 60 ms: 900-1100")
    parser.add_argument("--pause-ms", type=float, nargs="+", help="for which a switch holds up a GPU's work")
    parser.add_argument("--two-numbers", action="store_true", help="tell the operator no lags by target")
    parser.add_argument("--time-scale", type=float, default=0.55)
    parser.add_argument("--granularity", default="auto")
    parser.add_argument("--pairs", type=int, default=8, help="of blocks to measure, 4 at least (default: %(default)s)")
    parser.add_argument("--detail", type=Path, help="write the last report, plan and status of each run here")
    parser.add_argument(
        "--framework", choices=("megatron", "torch", "deepspeed", "replicas"), help="whose schedules train"
    )
    parser.add_argument("--options", type=json.loads, default={}, help="of its training: schedule, chunks, batched ...")
    parser.add_argument("--slowdown", type=float, default=0.0, help="percent that are allowed (default: %(default)s)")
    parser.add_argument("--environment", help="one of locks/frameworks, the newest by default")
    parser.add_argument("--straggler", type=float, help="how many times as long the second of two replicas takes")
    parser.add_argument("--stages", type=int, default=8, help="of each replica then (default: %(default)s)")
    parser.add_argument("--announce", action="store_true", help="announce it, rather than let it be found")
    parser.add_argument("--only", type=int, help="the one stage of it that is slower (default: all)")
    options = parser.parse_args()
    if options.straggler is not None:
        with cores_awake():
            runs = [beside_straggler(replicated(options.stages), lag, options) for lag in options.lag_ms]
        held_up = {"virtual": True, "time_scale": options.time_scale, "runs": runs}
        print(json.dumps(held_up, indent=2))
        (ROOT / "benchmarks/results/straggler.json").write_text(json.dumps(held_up, indent=2) + "\n")
        return
    made = example()
    if options.framework == "replicas":
        made = replicas(options.options)
    elif options.framework is not None:
        made = of_framework(options.framework, options.environment, options.options)
    with cores_awake():
        runs = [run(made, lag, pause, options) for lag in options.lag_ms for pause in options.pause_ms or (0.0,)]
    result = {"virtual": True, "time_scale": options.time_scale, "runs": runs}
    print(json.dumps(result, indent=2))
    if options.framework is not None and not options.slow_targets:
        environment = options.environment
        if environment is None and options.framework in ("megatron", "deepspeed"):
            environment = frameworks.names(options.framework)[-1]
        if (row := row_of(options.framework, environment, options.options)) is not None:
            keep(row, runs[-1] | {"time_scale": options.time_scale})
    if options.framework is not None or options.slow_targets:
        return
    name = "closed_loop" if options.pause_ms is None else "pauses"
    (ROOT / f"benchmarks/results/{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
