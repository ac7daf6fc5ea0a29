"""torch.distributed.pipelining on virtual GPUs: a real 1F1B run takes the time that its kernels add up to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from virtual_gpus import model
from virtual_gpus.fixtures import MakeVirtualGpus

JOB = Path(__file__).with_name("pipeline_job.py")


def test_a_1f1b_iteration_lasts_what_its_kernels_add_up_to(make_virtual_gpus: MakeVirtualGpus, tmp_path: Path) -> None:
    made = model.parametric(
        {"stage_scale": [1.0, 1.5], "seconds": {"F": 0.02, "B": 0.04}, "leak_per_k": 0.0, "power_cap_w": 1000.0}
    )
    gpus = make_virtual_gpus(made, gpus=2, time_noise=0.0)
    microbatches = 4
    command = [sys.executable, str(JOB), str(tmp_path / "meeting"), "3", str(microbatches)]
    alone = {"WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            command,
            env={**gpus.environment, **alone, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (out, errors), (_, other_errors) = (rank.communicate(timeout=240) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], errors + other_errors
    assert "CUDA" not in errors
    iterations_s = [ms / 1e3 for ms in json.loads(out.splitlines()[-1])]
    # Stage 1 is the longer: it works without a pause between stage 0's first forward and last backward.
    ideal_s = 0.02 + microbatches * 1.5 * (0.02 + 0.04) + 0.04
    assert all(s >= ideal_s - 1e-4 for s in iterations_s)
    assert min(iterations_s) < 2 * ideal_s  # loose: a busy machine delays the hand-over, not the kernels
    for gpu, scale in enumerate((1.0, 1.5)):
        seen = gpus.look(gpu)
        kernels_s = scale * 3 * microbatches * (0.02 + 0.04)
        assert kernels_s - 1e-4 <= seen.busy_s <= kernels_s + scale * 2 * 0.06  # a few more to learn the shapes
