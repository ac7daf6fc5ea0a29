"""What is watched in a training process.

- `pipelining`: the steps of `torch.distributed.pipelining`
- `megatron`: the iterations of Megatron-core's schedules
- `deepspeed`: the batches of DeepSpeed's pipelines
- `optimizers`: the steps of an optimizer, where there is no pipeline
- `passes`: forward and backward in turn, where there is no pipeline
- `custom`: functions that take the place of torch's in a schedule
- `rounds`: how often a schedule runs for one step of the optimizer
- `loops`: loops that tell of themselves
- `compiling`: what torch's compiler finds of all that
- `check`: whether a framework is as its adapter knows it
- `steps`: what pipelines of whichever framework have in common
- `adapters`: one observer, told by these
"""

from __future__ import annotations

__all__: list[str] = []
