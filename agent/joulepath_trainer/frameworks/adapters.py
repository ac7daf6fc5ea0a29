"""What is observed in a training process, put together."""

from __future__ import annotations

from types import ModuleType

from joulepath_trainer.frameworks.deepspeed import DeepSpeedSteps
from joulepath_trainer.frameworks.megatron import MegatronSteps
from joulepath_trainer.frameworks.optimizers import OptimizerSteps
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.pipelining import PipelineSteps
from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.observer import Observer

__all__ = ["Adapters"]


class Adapters:
    """One observer, told by a pipeline's steps, or by the optimizer's until there is a pipeline."""

    def __init__(self, socket_path: str) -> None:
        observer = Observer(socket_path)
        passes = Passes(observer)
        optimizers = OptimizerSteps(observer, passes)
        steps = Steps(observer, on_step=optimizers.stand_aside)
        pipelining = PipelineSteps(steps)
        self._observe = {
            "torch.distributed.pipelining.stage": pipelining.observe_stages,
            "torch.distributed.pipelining.schedules": pipelining.observe_schedules,
            "torch.autograd": passes.observe_autograd,
            "torch.nn.modules.module": passes.observe_modules,
            "torch.optim.optimizer": optimizers.observe,
            "megatron.core.pipeline_parallel.schedules": MegatronSteps(steps, passes).observe_schedules,
            "deepspeed.runtime.engine": optimizers.observe_deepspeed,
            "deepspeed.runtime.pipe.engine": DeepSpeedSteps(steps).observe_engine,
        }

    def observe(self, module: ModuleType) -> None:
        """For a module that has just been imported, one of `joulepath_trainer.hook.MODULES`."""
        self._observe[module.__name__](module)
