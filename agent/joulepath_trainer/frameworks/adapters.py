"""What is observed in a training process, put together."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from joulepath_trainer.frameworks.check import Check
from joulepath_trainer.frameworks.compiling import leave_be
from joulepath_trainer.frameworks.deepspeed import DeepSpeedSteps
from joulepath_trainer.frameworks.loops import LoopSteps
from joulepath_trainer.frameworks.megatron import MegatronSteps
from joulepath_trainer.frameworks.optimizers import OptimizerSteps
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.pipelining import PipelineSteps
from joulepath_trainer.frameworks.rounds import Skips
from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.observer import Observer

__all__ = ["Adapters"]


class Adapters:
    """One observer, told by a pipeline's steps, or by the optimizer's until there is a pipeline."""

    def __init__(self, socket_path: str) -> None:
        check = Check()
        observer = Observer(socket_path, seen=check.told)
        passes = Passes(observer)
        skips = Skips()
        optimizers = OptimizerSteps(observer, passes, skips)
        steps = Steps(observer, skips, on_step=optimizers.stand_aside)
        self.loop = LoopSteps(steps)
        """For loops that tell of themselves."""
        pipelining = PipelineSteps(steps, check)
        self._observe = {
            "torch.distributed.pipelining.stage": pipelining.observe_stages,
            "torch.distributed.pipelining.schedules": pipelining.observe_schedules,
            "torch.autograd": passes.observe_autograd,
            "torch.nn.modules.module": passes.observe_modules,
            "torch._dynamo.trace_rules": leave_be,
            "torch.optim.optimizer": _both(optimizers.observe, pipelining.observe_optimizers),
            "megatron.core.pipeline_parallel.schedules": MegatronSteps(steps, passes, check).observe_schedules,
            "deepspeed.runtime.engine": optimizers.observe_deepspeed,
            "deepspeed.runtime.pipe.engine": DeepSpeedSteps(steps, check).observe_engine,
        }

    def observe(self, module: ModuleType) -> None:
        """For a module that has just been imported, one of `joulepath_trainer.hook.MODULES`."""
        self._observe[module.__name__](module)


def _both(*observe: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def observe_all(module: ModuleType) -> None:
        for each in observe:
            each(module)

    return observe_all
