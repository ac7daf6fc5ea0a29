"""What is observed in a training process, put together."""

from __future__ import annotations

from types import ModuleType

from joulepath_trainer.frameworks.optimizers import OptimizerSteps
from joulepath_trainer.frameworks.pipelining import PipelineSteps
from joulepath_trainer.observer import Observer

__all__ = ["Adapters"]


class Adapters:
    """One observer, told by the pipeline's steps, or by the optimizer's until there is a pipeline."""

    def __init__(self, socket_path: str) -> None:
        observer = Observer(socket_path)
        self._optimizers = OptimizerSteps(observer)
        self._pipelines = PipelineSteps(observer, on_first=self._optimizers.stand_aside)

    def observe_stages(self, module: ModuleType) -> None:
        """For `torch.distributed.pipelining.stage`."""
        self._pipelines.observe_stages(module)

    def observe_schedules(self, module: ModuleType) -> None:
        """For `torch.distributed.pipelining.schedules`."""
        self._pipelines.observe_schedules(module)

    def observe_optimizers(self, module: ModuleType) -> None:
        """For `torch.optim.optimizer`."""
        self._optimizers.observe(module.register_optimizer_step_post_hook)
