"""Trainings by Megatron-core that know nothing of Joulepath, on CPUs.

Megatron asks for CUDA in a few places, which are led to the CPU here; the schedules and what they exchange are its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from tests.trainer.frameworks.ran import RAN, Ran
from virtual_gpus import stream

WIDTH, SEQUENCE, SAMPLES = 4, 2, 1
MICROBATCHES = 4


def lead_to_cpu() -> None:
    """Before Megatron is imported."""
    zeros = torch.zeros

    def on_cpu(*args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("device", None)
        return zeros(*args, **kwargs)

    torch.zeros = on_cpu
    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.synchronize = lambda *_: None
    torch.Tensor.cuda = lambda self, *_, **__: self


lead_to_cpu()

from megatron.core import parallel_state  # noqa: E402
from megatron.core.enums import ModelType  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402


class Chunk(torch.nn.Module):  # type: ignore[misc]
    """One stage: a layer."""

    model_type = getattr(ModelType, "encoder_or_decoder", None)

    def __init__(self, stage: int, count: int, config: TransformerConfig) -> None:
        super().__init__()
        self.stage, self.last, self.config = stage, stage == count - 1, config
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self.input: torch.Tensor | None = None
        self.microbatch = 0

    def set_input_tensor(self, tensors: list[torch.Tensor]) -> None:
        """What the stage before has sent."""
        self.input = tensors[0]

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """The layer's output; the first stage's input is the data."""
        value = self.layer(data if self.stage == 0 else self.input)
        value = Ran.apply(value, self.stage, self.microbatch)
        self.microbatch += 1
        return value


def forward_step(data: Any, chunk: Chunk) -> tuple[torch.Tensor, Any]:
    output = chunk(next(data))
    return output, lambda result: (result.square().mean(), {"loss": result.square().mean().detach()})


class Training:
    """A model of `chunks` stages on each rank of pipelines of `pipeline` ranks."""

    def __init__(
        self,
        pipeline: int,
        chunks: int = 1,
        tensor: int = 1,
        context: int = 1,
        batched: bool = False,
        deallocate: bool = False,
    ) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(7)
        virtual = chunks if chunks > 1 else None
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=pipeline,
            virtual_pipeline_model_parallel_size=virtual,
            context_parallel_size=context,
        )
        config = TransformerConfig(
            num_layers=pipeline * chunks,
            hidden_size=WIDTH,
            num_attention_heads=tensor,
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=pipeline,
            virtual_pipeline_model_parallel_size=virtual,
            context_parallel_size=context,
            pipeline_dtype=torch.float32,
            batch_p2p_comm=batched,
            deallocate_pipeline_outputs=deallocate,
            overlap_p2p_comm=chunks > 1 and not batched,
        )
        number, count = parallel_state.get_pipeline_model_parallel_rank(), pipeline * chunks
        self.chunks = [Chunk(number + pipeline * chunk, count, config) for chunk in range(chunks)]
        parameters = [parameter for chunk in self.chunks for parameter in chunk.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)

    def step(self, microbatches: int, *, forward_only: bool = False) -> tuple[list[list[Any]], list[float]]:
        """One iteration; what has run in it, and the losses of the microbatches on the last rank."""
        RAN.clear()
        for chunk in self.chunks:
            chunk.microbatch = 0
        data = [iter([torch.ones(SEQUENCE, SAMPLES, WIDTH)] * microbatches) for _ in self.chunks]
        several = len(self.chunks) > 1
        results = get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=data if several else data[0],
            model=self.chunks if several else self.chunks[0],
            num_microbatches=microbatches,
            seq_length=SEQUENCE * parallel_state.get_context_parallel_world_size(),
            micro_batch_size=SAMPLES,
            forward_only=forward_only,
        )
        if not forward_only:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return list(RAN), [float(one["loss"]) for one in results]


def train(
    rank: int,
    steps: int,
    ramp: Sequence[int] = (),
    evaluate_after: int = -1,
    **options: Any,
) -> dict[str, Any]:
    """Trains; what ran in each step, the losses, and where this rank stands.

    Args:
        rank: This one.
        steps: How many.
        ramp: The microbatches of the first steps.
        evaluate_after: The step after which it evaluates.
        options: Of `Training`.
    """
    training = Training(**options)
    orders, losses = [], []
    for number in range(steps):
        dist.barrier()
        microbatches = ramp[number] if number < len(ramp) else MICROBATCHES
        order, loss = training.step(microbatches)
        orders.append(order)
        losses.append(loss)
        if number == evaluate_after:
            training.step(MICROBATCHES, forward_only=True)
    return {
        "orders": orders,
        "losses": losses,
        "data": parallel_state.get_data_parallel_rank(),
        "tensor": parallel_state.get_tensor_and_context_parallel_rank(),
        "pipeline": list(dist.get_process_group_ranks(parallel_state.get_pipeline_model_parallel_group())),
    }


def main(options: dict[str, Any]) -> None:
    """Trains on virtual GPUs until it is killed, as a process that torchrun starts."""
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()
    dist.init_process_group("gloo")
    microbatches = options.pop("microbatches")
    training = Training(**options)
    while True:
        training.step(microbatches)
        stream.synchronize()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
