"""What the trainer's hook costs a training process: microseconds for each computation, milliseconds at start.

One process trains a pipeline of one tiny stage, so that nearly all the time is torch's own bookkeeping: the worst case
for the hook. Blocks of steps run in turn without the hook, with it but no agent, and with markers by the host and by
the stream of a *virtual* GPU (its driver library is not NVIDIA's: the cost of a real one's calls is not in the number).
Times are CPU times of the training thread, so other load on the machine matters little.

    python benchmarks/trainer_overhead.py        # writes benchmarks/results/trainer_overhead.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MICROBATCHES, BLOCKS, STEPS = 32, 60, 5
CHUNKS = 2 * MICROBATCHES


def start_agent(path: Path) -> None:
    """Listens in a process of its own until this one ends."""
    from agent_double import AgentDouble

    alive, hold = os.pipe()
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.close(hold)
        with AgentDouble(path):
            os.write(tell, b"x")
            os.read(alive, 1)
        os._exit(0)
    os.close(tell)
    if not os.read(ready, 1):
        raise RuntimeError("the agent's double has ended before it listened")


def train(folder: Path) -> dict[str, float]:
    """CPU seconds of a step, by mode: the lowest decile, which other load on the machine touches least."""
    start_agent(folder / "agent")
    import torch
    from torch.distributed import pipelining
    from torch.distributed.pipelining import schedules, stage

    from joulepath_trainer.frameworks.adapters import Adapters
    from virtual_gpus import model, state, stream

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)
    methods = [(c, "step") for c in (schedules.PipelineScheduleSingle, schedules.PipelineScheduleMulti)]
    methods += [
        (stage._PipelineStageBase, name)
        for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk")
    ]
    original = [getattr(owner, name) for owner, name in methods]

    def use(table: list[Callable[..., Any]]) -> None:
        for (owner, name), method in zip(methods, table, strict=True):
            setattr(owner, name, method)

    def hooked(socket_path: Path) -> list[Callable[..., Any]]:
        use(original)
        adapters = Adapters(str(socket_path))
        adapters.observe(stage)
        adapters.observe(schedules)
        return [getattr(owner, name) for owner, name in methods]

    layer = pipelining.PipelineStage(torch.nn.Linear(8, 8), 0, 1, torch.device("cpu"))
    schedule = pipelining.ScheduleGPipe(layer, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    data = torch.ones(MICROBATCHES, 8)
    state.create(folder / "gpus", model.parametric({}), state.Options(gpus=1, root_only=False))
    os.environ.update(VIRTUAL_GPUS_STATE=str(folder / "gpus"), NVIDIA_VISIBLE_DEVICES="all")
    modes = {"unhooked": original, "no agent": hooked(folder / "none")}
    modes |= {name: hooked(folder / "agent") for name in ("host markers", "stream markers")}
    spent: dict[str, list[float]] = {name: [] for name in modes}
    for block in range(BLOCKS):
        for name, table in modes.items():
            use(table)
            if block == 0 and name == "stream markers":
                stream.set_device(0)
            for _ in range(STEPS):
                begin = time.thread_time()
                schedule.step(data, target=data)
                spent[name].append(time.thread_time() - begin)
    os.write(
        1,
        json.dumps({name: statistics.quantiles(times[STEPS:], n=10)[0] for name, times in spent.items()}).encode(),
    )
    os._exit(0)


def startup_ms(**environment: str) -> float:
    """CPU milliseconds of a Python that does nothing."""
    clean = {"PATH": os.environ["PATH"], **environment}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "pass"], env=clean, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Measures and writes the result."""
    from virtual_gpus.build import library_dir

    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library_dir())}
        answer = subprocess.check_output([sys.executable, __file__, "--train", folder], env=environment)
    step_s = json.loads(answer)
    bare = step_s.pop("unhooked")
    pythonpath = str(ROOT / "agent/joulepath_trainer/bootstrap")
    starts = [
        (startup_ms(PYTHONPATH=""), startup_ms(PYTHONPATH=pythonpath, JOULEPATH_SOCKET="/nowhere")) for _ in range(60)
    ]
    result = {
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "gpu": "virtual"},
        "step_ms_unhooked": round(bare * 1e3, 3),
        "computations_per_step": CHUNKS,
        "overhead_us_per_computation": {n: round((s - bare) / CHUNKS * 1e6, 2) for n, s in step_s.items()},
        "ratio_of_step_of_a_tiny_stage": {name: round(s / bare, 4) for name, s in step_s.items()},
        "ratio_with_computations_of_20_ms": {
            name: round(1 + (s - bare) / (CHUNKS * 0.02), 6) for name, s in step_s.items()
        },
        "start_up_ms": round(statistics.median(b for _, b in starts) - statistics.median(a for a, _ in starts), 2),
    }
    target = ROOT / "benchmarks/results/trainer_overhead.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(target.read_text(), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    folder: Path | None = parser.parse_args().train
    main() if folder is None else train(folder)
