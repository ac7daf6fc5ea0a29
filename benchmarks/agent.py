"""How soon a clock is ordered, and what that takes of a node of virtual GPUs; writes benchmarks/results/agent.json.

    .venv/bin/python benchmarks/agent.py [--seconds 20] [--zeusd PATH]

Clocks, agent, warden and eight ranks run as processes of their own. The ranks write markers as a GPU's stream would,
at their pace and with the noise of real ones, and remember when; the virtual driver remembers when it was called for
which clock. So "event to NVML call" is from the write of the marker that leads to a clock to the call that orders it.
The peer is zeusd (`cargo install zeusd`), asked by a client that does nothing else, over its Unix socket, on the same
GPUs in the same run: from just before the request is sent to the call. Both while two processes keep two cores busy.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from joulepath_crds import Instruction, JobPlanSpec, Purpose, StagePlan  # noqa: E402
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace  # noqa: E402
from joulepath_trainer.wire.page import MarkerEvent, PageWriter  # noqa: E402
from tests.agent.soaking.day import IN_THE_IMAGE  # noqa: E402
from virtual_gpus import model, state  # noqa: E402
from virtual_gpus.build import library_dir  # noqa: E402

RESULT: Final = ROOT / "benchmarks/results/agent.json"
GPUS: Final = 8
ORDER: Final = ("F0", "F1", "B0", "F2", "B1", "F3", "B2", "B3")
CLOCKS_MHZ: Final = (1200, 900) * 4
RUNS: Final = 5
EVENTS_OF_AN_ITERATION: Final = 2 * len(ORDER) + 2
WARM_UP_S: Final = 5.0
START_S: Final = 60.0
Written = list[tuple[int, int]]
"""Of one rank: when an end was written, and the clock that follows it."""


# the ranks, a process of its own


class Rank:
    """One training process's side, without the training."""

    def __init__(self, path: str, gpu: int, uuid: str, events_per_s: float) -> None:
        from tests.agent.peer import connect

        ranks = tuple(range(GPUS))
        place = PipelinePlace("Schedule1F1B", GPUS, 4, (gpu,), ranks)
        self._connection, page = connect(path, Hello(gpu, gpu, GPUS, 0, uuid, "stream", place))
        self._writer = PageWriter(page)
        self._order = [Instruction.parse(label, gpu) for label in ORDER]
        self._mean_s = EVENTS_OF_AN_ITERATION / events_per_s / len(ORDER)
        self._chance = random.Random(gpu)
        self.written: Written = []

    def moments(self) -> Iterator[float]:
        """Trains; yields the seconds until it wants to go on."""
        iteration = 0
        while True:
            self._pass(MarkerEvent.STEP_BEGIN, iteration)
            begin_s, spans = time.monotonic(), []
            for one, after in zip(self._order, (*CLOCKS_MHZ[1:], CLOCKS_MHZ[0]), strict=True):
                yield self._mean_s * self._chance.uniform(0.0, 0.4)
                first_s = time.monotonic()
                self._pass(MarkerEvent.BEGIN, iteration, one)
                yield self._mean_s * self._chance.gauss(0.8, 0.01)
                self.written.append((self._pass(MarkerEvent.END, iteration, one), after))
                span = (first_s - begin_s, time.monotonic() - begin_s)
                spans.append(InstructionSpan(one.kind, one.stage, one.microbatch, *span))
            self._pass(MarkerEvent.STEP_END, iteration)
            took_s = time.monotonic() - begin_s
            self._connection.send(IterationRecord(iteration, took_s, took_s, tuple(spans)).encode())
            iteration += 1

    def _pass(self, event: MarkerEvent, iteration: int, one: Instruction | None = None) -> int:
        stage, kind, microbatch, _ = one or (0, "", 0, 0)
        sequence = self._writer.announce(event, iteration, kind, stage, microbatch)
        now_ns = time.monotonic_ns()
        self._writer.pass_marker(sequence)
        return now_ns


def train(path: str, uuids: Sequence[str], events_per_s: float) -> None:
    """Trains on all GPUs until standard input ends, and prints what was written when.

    A GPU's stream waits for no core: neither does this process, so that only the agent's parts do.
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    ranks = [Rank(path, gpu, uuid, events_per_s) for gpu, uuid in enumerate(uuids)]
    ended = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    due = [(time.monotonic() + rank._mean_s * at / GPUS, at, rank.moments()) for at, rank in enumerate(ranks)]
    heapq.heapify(due)
    while not ended.is_set():
        at_s, gpu, rank = heapq.heappop(due)
        time.sleep(max(0.0, at_s - time.monotonic()))
        heapq.heappush(due, (max(at_s, time.monotonic() - 0.001) + next(rank), gpu, rank))
    print(json.dumps([rank.written for rank in ranks]), flush=True)


# the node


class Node:
    """Virtual GPUs with warden, clocks and agent."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.state = self.folder / "gpus"
        state.create(self.state, model.parametric({}), state.Options(gpus=GPUS, node="bench", root_only=False))
        self.uuids = state.uuids(self.state)
        self._stack = stack
        self.environment = {
            **os.environ,
            "VIRTUAL_GPUS_STATE": str(self.state),
            "NVIDIA_VISIBLE_DEVICES": "all",
            "LD_LIBRARY_PATH": str(library_dir()),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'lab'}",
            "POD_UID": "a",
            **IN_THE_IMAGE,
        }

    def start(self, *command: str, heard: bool = True) -> subprocess.Popen[str]:
        """A process that ends with the node."""
        log = self._stack.enter_context((self.folder / "log").open("ab"))
        said = subprocess.PIPE if heard else log
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=said, stderr=log, text=True
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def agent(self) -> tuple[subprocess.Popen[str], ...]:
        """All parts of a node: what the product imports, with plans from standard input in place of an API."""
        kept = self.folder / "state"
        warden = self.start(sys.executable, "-m", "joulepath_warden", "--state-dir", str(kept))
        wait(lambda: (kept / "warden.sock").exists(), "the warden listens")
        clocks = self.start(
            *(sys.executable, "-m", "local_clocks"),
            *("--socket", str(self.folder / "agent.sock"), "--state-dir", str(kept)),
        )
        self.hear(clocks)
        program = "import joulepath_agent.__main__, local_agent; local_agent.main()"
        agent = self.start(
            *(sys.executable, "-c", program, "--state-dir", str(kept), "--pod", f"a={','.join(self.uuids)}"),
        )
        self.hear(agent)
        return agent, clocks, warden  # as results tell of them

    @staticmethod
    def hear(process: subprocess.Popen[str]) -> Any:
        """A line of what it says."""
        assert process.stdout is not None
        return json.loads(process.stdout.readline())

    @staticmethod
    def say(process: subprocess.Popen[str], what: object) -> None:
        """A line to it."""
        assert process.stdin is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()

    def ranks(self, events_per_s: float) -> subprocess.Popen[str]:
        """Eight ranks that train."""
        arguments = (str(self.folder / "agent.sock"), str(events_per_s), *self.uuids)
        started = self.start(sys.executable, __file__, "--train", *arguments)
        for _ in self.uuids:
            assert self.hear(started)["accepted"]
        return started

    def orders(self) -> list[list[state.Order]]:
        """By GPU, all that the driver still remembers."""
        return [list(state.orders(self.state, gpu)) for gpu in range(GPUS)]


def plan() -> dict[str, Any]:
    """One that orders another clock at each end of an instruction. It predicts ends that never come sooner."""
    stages = tuple(
        StagePlan(stage=stage, order=ORDER, clocks_mhz=CLOCKS_MHZ, durations_s=(10.0,) * len(ORDER))
        for stage in range(GPUS)
    )
    body = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="job-uid",
        purpose=Purpose.ENFORCE,
        hash="0" * 16,
        activate_at=1,
        stages=stages,
        default_clock_mhz=1410,
    )
    return body.to_api()


def wait(true: Callable[[], bool], what: str) -> None:
    """Until it is so."""
    deadline = time.monotonic() + START_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.02)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Processes that only burn."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in burning:
            one.kill()
            one.wait()


# what is measured


def lateness_s(written: Sequence[Written], orders: Sequence[Sequence[state.Order]], since_ns: int) -> list[float]:
    """Of each order since then: seconds after the end that led to it; inf for an end whose clock never was ordered."""
    late = []
    for of_rank, of_gpu in zip(written, orders, strict=True):
        first_ns = max(since_ns, of_gpu[0].called_ns if of_gpu else since_ns)
        ends = [(at, clock) for at, clock in of_rank if at >= first_ns]
        called = [one.called_ns for one in of_gpu]
        for (at, clock), (next_at, _) in itertools.pairwise(ends):
            between = of_gpu[bisect.bisect_left(called, at) : bisect.bisect_left(called, next_at)]
            answers = [one.called_ns for one in between if one.high_mhz == clock]
            late.append((answers[0] - at) / 1e9 if answers else float("inf"))
    return late


def cpu_s(process: subprocess.Popen[str]) -> float:
    """Seconds of a core that it has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: subprocess.Popen[str]) -> int:
    """What it has in memory, shared libraries included."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def measure(events_per_s: float, seconds: float, busy: int) -> dict[str, Any]:
    """Eight ranks at that pace under a plan."""
    with ExitStack() as stack:
        node = Node(stack)
        parts = node.agent()
        ranks = node.ranks(events_per_s)
        node.say(parts[0], {"plans": [plan()]})
        wait(lambda: all(node.orders()), "clocks are ordered")
        stack.enter_context(busy_cores(busy))
        time.sleep(WARM_UP_S)
        since_ns, before_s = time.monotonic_ns(), [cpu_s(part) for part in parts]
        time.sleep(seconds)
        took_s = (time.monotonic_ns() - since_ns) / 1e9
        after_s, resident = [cpu_s(part) for part in parts], [resident_bytes(part) for part in parts]
        assert ranks.stdin is not None
        ranks.stdin.close()
        late = lateness_s(node.hear(ranks), node.orders(), since_ns)
    return {
        **quantiles(late),
        "cpu_cores": [(after - before) / took_s for after, before in zip(after_s, before_s, strict=True)],
        "resident_mib": [each / 2**20 for each in resident],
        "missed": sum(each == float("inf") for each in late),
    }


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run whose CPU is in the middle, and the CPU of all: what a wake costs differs from minute to minute."""
    by_cpu = sorted(runs, key=lambda run: sum(run["cpu_cores"]))
    return {**by_cpu[len(runs) // 2], "cpu_cores_of_all_runs": [sum(run["cpu_cores"]) for run in by_cpu]}


def quantiles(late_s: Sequence[float]) -> dict[str, Any]:
    """In microseconds."""
    points = statistics.quantiles(late_s, n=100)
    return {"samples": len(late_s), "p50_us": 1e6 * statistics.median(late_s), "p99_us": 1e6 * points[98]}


def measure_zeusd(program: str, events_per_s: float, seconds: float, busy: int) -> dict[str, Any]:
    """The same orders by requests: one at a time for each GPU, which is waited for as Zeus's own client does."""
    with ExitStack() as stack:
        node = Node(stack)
        path = node.folder / "zeusd.sock"
        node.start(program, "serve", "--socket-path", str(path), "--enable", "gpu-control", heard=False)
        wait(path.exists, "zeusd listens")
        stack.enter_context(busy_cores(busy))
        client = Requests(str(path))
        sent: list[Written] = [[] for _ in range(GPUS)]
        took_s: list[float] = []
        pause_s = 2 / (GPUS * events_per_s)
        until = time.monotonic() + seconds
        for at in range(1 << 60):
            begun_s, gpu, clock = time.monotonic(), at % GPUS, CLOCKS_MHZ[at // GPUS % 2]
            if begun_s > until:
                break
            sent[gpu].append((time.monotonic_ns(), clock))
            client.lock(gpu, clock)
            took_s.append(time.monotonic() - begun_s)
            time.sleep(max(0.0, pause_s - took_s[-1]))
        late = lateness_s(sent, node.orders(), 0)
    return {**quantiles(late), "answer": quantiles(took_s)}


class Requests:
    """The least that can ask zeusd: one connection that is kept."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def lock(self, gpu: int, clock_mhz: int) -> None:
        """Locks, and waits for the answer."""
        query = f"gpu_ids={gpu}&block=true&min_clock_mhz={clock_mhz}&max_clock_mhz={clock_mhz}"
        head = f"POST /gpu/set_gpu_locked_clocks?{query} HTTP/1.1\r\nHost: zeusd\r\nContent-Length: 0\r\n\r\n"
        self._socket.send(head.encode())
        answer = self._socket.recv(65536)
        if b" 200 " not in answer[:20]:
            raise OSError(answer.decode(errors="replace"))


def main() -> None:
    """Measures and writes all."""
    parser = argparse.ArgumentParser(description="How soon a clock is ordered, and what that takes of a node.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of five runs (default 10)")
    parser.add_argument("--zeusd", default=shutil.which("zeusd"), help="the peer's program (default: from PATH)")
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        path, pace, *uuids = options.train
        train(path, uuids, float(pace))
        return
    results: dict[str, Any] = {}
    for name, pace, busy in (("busy", 200.0, 2), ("fast", 100.0, 0), ("slow", 15.0, 0)):
        results[name] = middle([measure(pace, options.seconds, busy) for _ in range(RUNS)])
        print(name, json.dumps(results[name]), flush=True)
    if options.zeusd:
        results["zeusd"] = measure_zeusd(options.zeusd, 200.0, options.seconds, 2)
        print("zeusd", json.dumps(results["zeusd"]), flush=True)
    bars = list(judged(results))
    RESULT.write_text(json.dumps({"bars": bars, "measured": results}, indent=1) + "\n")
    for bar in bars:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4g}, limit {bar['limit']}")


def judged(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The bars: values must not exceed their limits."""
    busy = results["busy"]
    resident = max(sum(results[name]["resident_mib"]) for name in ("busy", "fast", "slow"))
    bars = [
        ("event to NVML call, p50, us, 8 GPUs x 200 events/s, two busy cores", busy["p50_us"], 150.0),
        ("event to NVML call, p99, us, 8 GPUs x 200 events/s, two busy cores", busy["p99_us"], 1000.0),
        ("resident memory of all parts, MiB", resident, 120.0),
        ("CPU of all parts, cores, 8 GPUs x 100 events/s", sum(results["fast"]["cpu_cores"]), 0.25),
        ("CPU of all parts, cores, 8 GPUs x 15 events/s", sum(results["slow"]["cpu_cores"]), 0.05),
    ]
    if "zeusd" in results:
        zeusd = results["zeusd"]
        bars.append(
            (
                "event to NVML call, p50, as a share of a request to zeusd",
                busy["p50_us"] / zeusd["answer"]["p50_us"],
                0.5,
            )
        )
    for name, value, limit in bars:
        yield {"name": name, "value": value, "limit": limit, "holds": value <= limit}


if __name__ == "__main__":
    main()
