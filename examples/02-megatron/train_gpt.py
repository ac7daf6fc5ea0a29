"""Trains a GPT of Megatron-core: two pipeline ranks with two chunks of the model each, interleaved. It knows nothing of
Joulepath.

Model, schedule and exchanges are Megatron-core's own and really computed, in small, on the CPU; the time and the energy
of a chunk come from a virtual GPU, which runs one kernel for each forward and each backward, as a large chunk would run
thousands. On machines with GPUs, leave out the kernels and `lead_to_cpu`, and make the model large.

    torchrun --nproc-per-node 2 train_gpt.py --steps 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from virtual_gpus import stream

warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine).*")  # Megatron's own fallbacks serve
warnings.filterwarnings("ignore", message="CUDA initialization")  # torch finds the virtual driver, and can't use it


def lead_to_cpu() -> None:
    """Where Megatron-core asks for CUDA, it gets the CPU: before its modules are imported."""

    def anywhere(make: Any) -> Any:
        return lambda *size, device=None, **how: make(*size, **how)

    torch.zeros, torch.ones, torch.empty = anywhere(torch.zeros), anywhere(torch.ones), anywhere(torch.empty)
    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.synchronize = lambda *_: None
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self


lead_to_cpu()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402

tensor_parallel.random.CudaRNGStatesTracker.fork = lambda *_: contextlib.nullcontext()

CHUNKS = 2
WIDTH, HEADS = 32, 2
VOCABULARY, SEQUENCE, SAMPLES = 64, 8, 1


class ChunkKernels(torch.autograd.Function):  # type: ignore[misc]  # mypy skips torch: 40 s
    """The chunk's forward and backward kernels, enqueued where autograd passes."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, stage: int) -> Tensor:
        ctx.stage = stage
        stream.launch(stage, "F")
        return activations.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        stream.launch(ctx.stage, "B")
        return gradients[0].clone(), None


class Chunk(GPTModel):  # type: ignore[misc]
    """A chunk of the GPT: a layer, with the embedding if it is the first and the output layer if it is the last."""

    def __init__(self, stage: int, chunk: int, stages: int, config: TransformerConfig) -> None:
        super().__init__(
            config,
            get_gpt_layer_local_spec(),
            vocab_size=VOCABULARY,
            max_sequence_length=SEQUENCE,
            pre_process=stage == 0,
            post_process=stage == stages - 1,
            vp_stage=chunk,
        )
        self.stage = stage

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        activations: Tensor = ChunkKernels.apply(super().forward(*inputs, **named), self.stage)
        return activations


def forward_step(samples: Any, chunk: Chunk) -> tuple[Tensor, Any]:
    """What Megatron-core's schedules call for each microbatch of a chunk."""
    tokens, labels = next(samples)
    positions = torch.arange(SEQUENCE).expand(SAMPLES, SEQUENCE)
    output = chunk(tokens, positions, None, labels=labels)
    return output, lambda losses: (losses.mean(), {"loss": losses.detach().mean()})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--microbatches", type=int, default=8, help="microbatches of a step (default: %(default)s)")
    parser.add_argument("--report-every", type=int, default=10, help="steps between two lines (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()

    parallel_state.initialize_model_parallel(
        pipeline_model_parallel_size=ranks, virtual_pipeline_model_parallel_size=CHUNKS
    )
    stages = ranks * CHUNKS
    config = TransformerConfig(
        num_layers=stages,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pipeline_model_parallel_size=ranks,
        virtual_pipeline_model_parallel_size=CHUNKS,
        pipeline_dtype=torch.float32,
        overlap_p2p_comm=True,  # as Megatron-LM trains interleaved schedules unless told otherwise
        batch_p2p_comm=False,
        use_cpu_initialization=True,
    )
    model = [Chunk(rank + ranks * chunk, chunk, stages, config) for chunk in range(CHUNKS)]
    optimizer = torch.optim.AdamW([one for chunk in model for one in chunk.parameters()], lr=1e-3)
    tokens = torch.randint(0, VOCABULARY, (options.microbatches, SAMPLES, SEQUENCE))
    samples = list(zip(tokens, torch.roll(tokens, -1, dims=2), strict=True))
    train = get_forward_backward_func()

    begin = time.monotonic()
    for step in range(options.steps):
        optimizer.zero_grad()
        losses = train(
            forward_step_func=forward_step,
            data_iterator=[iter(samples) for _ in model],
            model=model,
            num_microbatches=options.microbatches,
            seq_length=SEQUENCE,
            micro_batch_size=SAMPLES,
            forward_only=False,
        )
        optimizer.step()
        if losses and (step % options.report_every == 0 or step == options.steps - 1):
            loss = torch.stack([one["loss"] for one in losses]).mean().item()
            seconds = (time.monotonic() - begin) / (step + 1)
            print(f"step {step} of {options.steps}: loss {loss:.4f}, {seconds:.3f} s a step so far", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
