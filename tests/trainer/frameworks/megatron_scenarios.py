"""Trainings by Megatron-core that know nothing of Joulepath, on CPUs.

Megatron asks for CUDA in a few places, which are led to the CPU here; the schedules and what they exchange are its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from tests.trainer.frameworks.ran import RAN, Ran, together
from virtual_gpus import stream

WIDTH, SEQUENCE, SAMPLES = 4, 2, 1
MICROBATCHES = 4


def lead_to_cpu() -> None:
    """Before Megatron is imported."""

    def on_cpu(make: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("device", None)
        return make(*args, **kwargs)

    torch.zeros, torch.tensor = partial(on_cpu, torch.zeros), partial(on_cpu, torch.tensor)
    torch.Tensor.type = lambda self: "torch.cuda.FloatTensor"
    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.synchronize = lambda *_: None
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.cuda.Stream = _Stream
    torch.cuda.current_stream = lambda *_: _Stream()
    torch.cuda.stream = nullcontext
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None


class _Stream:
    """There is but one order of things on a CPU; an event of it as well."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait(self, *_: Any) -> None:
        """It has come."""

    def record(self, *_: Any) -> None:
        """It is there."""


lead_to_cpu()

from megatron.core import parallel_state  # noqa: E402
from megatron.core.enums import ModelType  # noqa: E402
from megatron.core.optimizer.grad_scaler import DynamicGradScaler  # noqa: E402
from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params  # noqa: E402
from megatron.core.optimizer.optimizer_config import OptimizerConfig  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402

try:
    from megatron.core.models.gpt import gpt_model
    from megatron.core.pipeline_parallel.utils import AbstractSchedulePlan
except ImportError:  # 0.12 runs nothing interleaved
    AbstractSchedulePlan = object


class Chunk(torch.nn.Module):  # type: ignore[misc]
    """One stage: a layer."""

    model_type = getattr(ModelType, "encoder_or_decoder", None)

    def __init__(self, stage: int, count: int, config: TransformerConfig, vp_stage: int = 0) -> None:
        super().__init__()
        self.stage, self.last, self.config, self.vp_stage = stage, stage == count - 1, config, vp_stage
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self.input: torch.Tensor | None = None
        self.inputs: list[torch.Tensor | None] = []
        """Of what wasn't gone back through yet."""
        self.microbatch = 0

    def set_input_tensor(self, tensors: list[torch.Tensor]) -> None:
        """What the stage before has sent."""
        self.input = tensors[0]

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """The layer's output; the first stage's input is the data."""
        self.inputs.append(self.input)
        value = self.layer(data if self.stage == 0 else self.input)
        value = Ran.apply(value, self.stage, self.microbatch)
        self.microbatch += 1
        return value

    def build_schedule_plan(self, data: torch.Tensor) -> Plan:
        """A forward that is yet to run, and its backward."""
        return Plan(self, data)


class Plan(AbstractSchedulePlan):  # type: ignore[misc]
    """A microbatch of a chunk that Megatron runs interleaved with another one: what Megatron's plan of a transformer
    does, on one layer."""

    def __init__(self, chunk: Chunk, data: torch.Tensor) -> None:
        self.chunk, self.data, self.vp_stage = chunk, data, chunk.vp_stage
        self.event, self.output, self.place = _Stream(), torch.zeros(0), (chunk.stage, -1)

    @staticmethod
    def run(
        forward: Plan | None,
        backward: Plan | None,
        b_grad: Any = None,
        pre_forward: Any = None,
        pre_backward: Any = None,
        post_forward: Any = None,
        post_backward: Any = None,
    ) -> Any:
        """As Megatron calls it: waits for what both need, computes, sends what both made."""
        output: torch.Tensor | None = None
        both: AbstractContextManager[None] = nullcontext()
        if forward is not None:
            if pre_forward is not None:
                pre_forward(forward.vp_stage)
            forward.place = forward.chunk.stage, forward.chunk.microbatch
        if backward is not None:
            if pre_backward is not None:
                pre_backward(backward.vp_stage)
            if forward is not None:
                both = together(forward.place, backward.place)
        with both:
            if forward is not None:
                output = forward.output = forward.chunk(forward.data)
            if backward is not None:
                given = backward.chunk.inputs.pop(0)
                backward.output.backward(b_grad)
        if forward is not None and post_forward is not None:
            post_forward(output, forward.vp_stage)
        if backward is not None and post_backward is not None:
            post_backward(None if given is None else given.grad, backward.vp_stage)
        return None if output is None else output.detach().requires_grad_()


def forward_step(data: Any, chunk: Chunk, return_schedule_plan: bool = False) -> tuple[Any, Any]:
    output = chunk.build_schedule_plan(next(data)) if return_schedule_plan else chunk(next(data))
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
        combined: bool = False,
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
        if combined:  # asks for experts on GPUs, which are none of the schedule's business
            config.overlap_moe_expert_parallel_comm, gpt_model.GPTModel = True, Chunk
        number, count = parallel_state.get_pipeline_model_parallel_rank(), pipeline * chunks
        self.chunks = [Chunk(number + pipeline * chunk, count, config, chunk) for chunk in range(chunks)]
        parameters = [parameter for chunk in self.chunks for parameter in chunk.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)

    def step(
        self, microbatches: int, *, forward_only: bool = False, value: float = 1.0
    ) -> tuple[list[list[Any]], list[float]]:
        """One iteration of such data; what has run in it, and the losses of the microbatches on the last rank."""
        RAN.clear()
        for chunk in self.chunks:
            chunk.microbatch, chunk.inputs = 0, []
        data = [iter([torch.full((SEQUENCE, SAMPLES, WIDTH), value)] * microbatches) for _ in self.chunks]
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
            self.stepped = self.optimizer.step()
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


def train_overflowing(rank: int, steps: int, overflows: int) -> list[int]:
    """Trains by Megatron's optimizer for 16 bits, and has gradients overflow in one step; the steps it skipped."""
    training = Training(2)
    parameters = list(training.chunks[0].parameters())
    for parameter in parameters:
        # As Megatron's DDP does.
        parameter.register_post_accumulate_grad_hook(lambda one: setattr(one, "main_grad", one.grad))
    config = OptimizerConfig(optimizer="sgd", lr=0.1, fp16=True, params_dtype=torch.float16, clip_grad=0.0)
    scaler = DynamicGradScaler(16.0, 1.0, 2.0, 0.5, 1000, 2)
    training.optimizer = Float16OptimizerWithFloat16Params(training.optimizer, config, scaler, lambda *_: None)
    skipped = []
    for number in range(steps):
        training.step(MICROBATCHES, value=float("inf") if number == overflows else 1.0)
        skipped += [] if training.stepped[0] else [number]
    return skipped


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
