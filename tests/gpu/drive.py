"""The training under the agent: observed, swept and under a plan, which is put together by hand of what the sweep saw.

    python drive.py --work DIR --device cuda --gpu UUID ... [--leave-clocks]

Starts the agent in its local mode beside a warden that runs already, and two ranks. Prints one JSON object at its end;
what a phase has found stands in it even where a later one fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from joulepath_crds import (
    Blocks,
    JobPlanSpec,
    JobReport,
    NodeReportStatus,
    Purpose,
    RankReport,
    StagePlan,
    Sweep,
    content_hash,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARES = (0.65, 0.8, 0.92)
OBSERVED_ITERATIONS = 12
SWEEP_BLOCK_S = 3.0
PLAN_BLOCK_S = 3.5
PAIRS = 4


class PhaseError(RuntimeError):
    """A phase found nothing; the text says what was waited for."""


def start_ranks(
    arguments: Sequence[str], environments: Sequence[dict[str, str]], log: Path
) -> list[subprocess.Popen[str]]:
    """Both ranks of the training, each with what its environment has more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "train.py"), *arguments]
    ranks = []
    for rank, more in enumerate(environments):
        own = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), **more}
        with log.with_suffix(f".rank{rank}").open("w") as errors:
            ranks.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=errors, text=True))
    return ranks


def steps_s(rank: subprocess.Popen[str], count: int) -> list[float]:
    """Seconds of the next steps of a rank; its first ones are slower."""
    assert rank.stdout is not None
    found: list[float] = []
    while len(found) < count and (line := rank.stdout.readline()):
        if line.startswith("{"):
            found.append(float(json.loads(line)["seconds"]))
    if len(found) < count:
        raise PhaseError(f"the training ended after {len(found)} steps: see its log")
    return found


class Driver:
    """Agent and training, and what was found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work
        self.found: dict[str, Any] = {}
        self.ranks: list[subprocess.Popen[str]] = []
        self.agent: subprocess.Popen[str] | None = None

    def observe(self) -> None:
        """Starts all, and waits until the agent has seen some iterations."""
        socket_path = self.work / "agent.sock"
        command = [sys.executable, str(ROOT / "lab/local_agent.py"), "--socket", str(socket_path)]
        command += ["--state-dir", str(self.work / "state"), "--pod", f"pod={','.join(self.options.gpu)}"]
        with (self.work / "agent.log").open("w") as log:
            self.agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.agent.stdout is not None
        if not self.agent.stdout.readline():
            raise PhaseError("the agent doesn't start: see agent.log")
        bootstrap = str(ROOT / "agent/joulepath_trainer/bootstrap")
        path = os.pathsep.join(filter(None, (bootstrap, os.environ.get("PYTHONPATH"))))
        hooked = {"PYTHONPATH": path, "JOULEPATH_SOCKET": str(socket_path), "POD_UID": "pod"}
        alone = len(self.options.gpu) == 1
        arguments = ["--device", self.options.device, *(["--alone"] if alone else [])]
        self.ranks = start_ranks(arguments, [hooked, {} if alone else hooked], self.work / "observed")
        self.found["observed_step_s"] = statistics.median(steps_s(self.ranks[0], OBSERVED_ITERATIONS + 3)[3:])
        _, rank = self.until(lambda rank: bool(rank.timeline), 20, "the timeline is measured")
        self.found["observed"] = summary(rank)

    def sweep(self) -> None:
        """Profiles at default clocks and some others."""
        job, rank = self.rank()
        clocks = self.clocks()
        order = (0, *clocks, 0, *reversed(clocks))
        blocks = max(3, math.ceil(SWEEP_BLOCK_S / rank.iteration_time_s))
        sweep = Sweep(clocks_mhz=order, iterations_per_block=min(101, blocks))
        self.plan(job, purpose=Purpose.SWEEP, sweep=sweep)
        limit_s = 3 * len(order) * blocks * rank.iteration_time_s + 10
        _, rank = self.until(lambda rank: len(rank.blocks) >= len(order), limit_s, "the sweep is complete")
        self.found["sweep"] = summary(rank)
        self.found["lag"] = [gpu.lag.to_api() if gpu.lag else None for gpu in self.report().gpus]

    def enforce(self) -> None:
        """Forwards at default clocks, backwards at a lower one, between control blocks: the clock switches often."""
        job, rank = self.rank()
        low = self.clocks()[1]
        time_s = {(one.kind, one.clock_mhz): one.time_s for one in rank.instructions}
        stages = []
        for each in (report for report in job.ranks):
            clocks = tuple(low if name.rpartition(":")[2][0] == "B" else 0 for name in each.order)
            durations = tuple(
                time_s.get((name.rpartition(":")[2][0], clock), 0.05)
                for name, clock in zip(each.order, clocks, strict=True)
            )
            stages.append(StagePlan(stage=each.stages[0], order=each.order, clocks_mhz=clocks, durations_s=durations))
        stages.sort(key=lambda stage: stage.stage)
        iterations = max(5, math.ceil(PLAN_BLOCK_S / rank.iteration_time_s))
        self.plan(
            job,
            purpose=Purpose.ENFORCE,
            stages=tuple(stages),
            blocks=Blocks(iterations=iterations, pairs=PAIRS),
            plan_iteration_time_s=2 * rank.iteration_time_s,
        )
        limit_s = 4 * PAIRS * iterations * rank.iteration_time_s + 10
        _, rank = self.until(lambda rank: len(rank.blocks) >= 2 * PAIRS, limit_s, "the blocks are complete")
        arms = {
            arm: {
                "iteration_s": statistics.mean(one.iteration_time_s for one in rank.blocks if one.arm == arm),
                "energy_j": statistics.mean(one.energy_per_iteration_j for one in rank.blocks if one.arm == arm),
                "blocks": sum(one.arm == arm for one in rank.blocks),
            }
            for arm in ("plan", "control")
        }
        self.found["plan"] = {"made": "by hand", "backwards_mhz": low, "arms": arms, **summary(rank)}

    def end(self) -> None:
        """Kills the training under its plan, and then ends the agent; how long each took."""
        for rank in self.ranks:
            rank.kill()
        if self.agent is not None:
            counts = self.say({"counts": True})
            self.found["counts"] = counts
            begun_s = time.monotonic()
            self.agent.send_signal(signal.SIGTERM)
            self.found["agent_exit"] = {"status": self.agent.wait(25), "seconds": time.monotonic() - begun_s}

    def clocks(self) -> tuple[int, ...]:
        """Some clocks of the first GPU, highest first."""
        supported = self.report().gpus[0].supported_clocks_mhz
        nearest = {min(supported, key=lambda clock, share=share: abs(clock - share * supported[0])) for share in SHARES}  # type: ignore[misc]
        return tuple(sorted(nearest, reverse=True))

    def plan(self, job: JobReport, **fields: Any) -> None:
        """Gives the agent a plan that begins a little later."""
        default_mhz = self.report().gpus[0].default_clock_mhz
        spec = JobPlanSpec(
            energy_plan="by-hand",
            job=job.job,
            job_uid=job.job_uid,
            attempt=job.attempt,
            hash="0" * 16,
            activate_at=max(rank.iteration for rank in job.ranks) + 3,
            default_clock_mhz=default_mhz,
            control_iteration_time_s=max(rank.iteration_time_s for rank in job.ranks),
            allowed_slowdown=0.5,
            **fields,
        )
        spec = spec.model_copy(update={"hash": content_hash(spec)})
        self.say({"plans": [spec.to_api()]}, answered=False)

    def say(self, what: dict[str, Any], *, answered: bool = True) -> Any:
        """A command to the agent."""
        assert self.agent is not None
        assert self.agent.stdin is not None
        assert self.agent.stdout is not None
        self.agent.stdin.write(json.dumps(what) + "\n")
        self.agent.stdin.flush()
        if answered and (line := self.agent.stdout.readline()):
            return json.loads(line)
        return None

    def report(self) -> NodeReportStatus:
        """What the agent reports."""
        said = self.say({"report": True})
        if said is None:
            raise PhaseError("the agent has ended: see agent.log")
        return NodeReportStatus.from_api(said)

    def rank(self) -> tuple[JobReport, RankReport]:
        """The job, and its first rank.

        Raises:
            PhaseError: There is none.
        """
        jobs = self.report().jobs
        if not jobs or not jobs[0].ranks:
            raise PhaseError("the agent reports no rank: see agent.log and the ranks' logs")
        return jobs[0], jobs[0].ranks[0]

    def until(self, true: Callable[[RankReport], bool], limit_s: float, what: str) -> tuple[JobReport, RankReport]:
        """Waits until something is true of the first rank.

        Raises:
            PhaseError: It never was.
        """
        limit_s *= float(os.environ.get("PATIENCE") or 1)
        deadline_s, rank = time.monotonic() + limit_s, None
        while time.monotonic() < deadline_s:
            try:
                job, rank = self.rank()
            except PhaseError:
                if self.ranks[0].poll() is not None:
                    raise
            else:
                if true(rank):
                    return job, rank
            time.sleep(0.3)
        state = "no rank" if rank is None else f"{rank.state}, {rank.reason or 'no reason'}, {len(rank.blocks)} blocks"
        raise PhaseError(f"waited {limit_s:.0f} s in vain until {what} ({state})")


def summary(rank: RankReport) -> dict[str, Any]:
    """What is worth keeping of a report."""
    body = rank.to_api()
    kept = ("state", "reason", "iteration", "iterationTimeSeconds", "order", "instructions", "waits", "blocks")
    return {name: body[name] for name in kept if name in body}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "virtual"], required=True)
    parser.add_argument("--gpu", action="append", required=True)
    parser.add_argument("--leave-clocks", action="store_true")
    driver = Driver(parser.parse_args())

    def finish(*_: object) -> None:
        raise PhaseError("its time was over")

    signal.signal(signal.SIGTERM, finish)
    phases = [driver.observe] if driver.options.leave_clocks else [driver.observe, driver.sweep, driver.enforce]
    try:
        for phase in phases:
            phase()
    except Exception as error:
        driver.found["failed"] = f"{phase.__name__}: {type(error).__name__}: {error}"
    finally:
        try:
            driver.end()
        except Exception as error:
            driver.found.setdefault("failed", f"end: {type(error).__name__}: {error}")
        print(json.dumps(driver.found), flush=True)
    for process in (*driver.ranks, driver.agent):
        if process is not None and process.poll() is None:
            process.kill()


if __name__ == "__main__":
    main()
