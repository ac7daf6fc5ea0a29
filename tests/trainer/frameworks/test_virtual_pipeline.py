"""torch.distributed.pipelining on virtual GPUs: a real 1F1B run takes the time that its kernels add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtual_gpus import model
from virtual_gpus.fixtures import MakeVirtualGpus

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery

MICROBATCHES, STEPS = 4, 3


def test_a_1f1b_iteration_lasts_what_its_kernels_add_up_to(
    nursery: Nursery, make_virtual_gpus: MakeVirtualGpus
) -> None:
    made = model.parametric(
        {"stage_scale": [1.0, 1.5], "seconds": {"F": 0.02, "B": 0.04}, "leak_per_k": 0.0, "power_cap_w": 1000.0}
    )
    gpus = make_virtual_gpus(made, gpus=2, time_noise=0.0)
    iterations_s, _ = nursery.run("time_on_virtual_gpus", 2, steps=STEPS, state=str(gpus.path))
    # Stage 1 is the longer: it works without a pause between stage 0's first forward and last backward.
    ideal_s = 0.02 + MICROBATCHES * 1.5 * (0.02 + 0.04) + 0.04
    assert all(s >= ideal_s - 1e-4 for s in iterations_s)
    assert min(iterations_s) < 2 * ideal_s  # loose: a busy machine delays the hand-over, not the kernels
    for gpu, scale in enumerate((1.0, 1.5)):
        seen = gpus.look(gpu)
        kernels_s = scale * STEPS * MICROBATCHES * (0.02 + 0.04)
        assert kernels_s - 1e-4 <= seen.busy_s <= kernels_s + scale * 2 * 0.06  # a few more to learn the shapes
