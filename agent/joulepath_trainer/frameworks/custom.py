"""Observes functions that take the place of torch's own in a schedule (`register_custom_function`), as torchtitan's do.

Facts about torch (2.15, read in its source):

- A custom function is given an action (its kind, stage and microbatch) and a context with the schedule. It waits by
  itself for what its stage receives, with `_wait_batch_p2p` and what stands in `fwd_recv_ops` or `bwd_recv_ops`: where
  something stands there, the instruction begins once that was waited for.
- One for `OVERLAP_F_B` runs a forward and a backward interleaved: such a training has iterations only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.session import BegunInstruction

__all__ = ["CustomFunctions"]

_KINDS: Final = {"FORWARD": "F", "FULL_BACKWARD": "B", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W"}
_RECEIVED: Final = {"F": "fwd_recv_ops", "B": "bwd_recv_ops", "I": "bwd_recv_ops"}
_OVERLAP: Final = "OVERLAP_F_B"


class CustomFunctions:
    """The instructions that run in them."""

    def __init__(self, steps: Steps, number: Callable[[int], int]) -> None:
        """`number` tells a microbatch's number in the iteration by that in the schedule."""
        self._steps, self._number = steps, number
        self.running = False
        """Whether one is: the computations of stages in it are parts of its instruction."""
        self._awaited: tuple[str, int, int] | None = None
        """An instruction that begins once its input is there."""
        self._token: BegunInstruction | None = None

    def observe(self, schedules_module: ModuleType) -> None:
        """For `torch.distributed.pipelining.schedules`."""
        runtime = schedules_module._PipelineScheduleRuntime
        runtime.register_custom_function = self._observed_registration(runtime.register_custom_function)
        wait = schedules_module._wait_batch_p2p
        schedules_module._wait_batch_p2p = self._observed_wait(wait)  # type: ignore[attr-defined]

    def _observed_registration(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def register_custom_function(schedule: Any, computation_type: Any, custom_function: Any) -> Any:
            name = getattr(computation_type, "name", "")
            if name in _KINDS or name == _OVERLAP:
                custom_function = self._observed(custom_function, _KINDS.get(name))
            return original(schedule, computation_type, custom_function)

        return register_custom_function

    def _observed(self, original: Callable[..., Any], kind: str | None) -> Callable[..., Any]:
        @functools.wraps(original)
        def custom_function(action: Any, ctx: Any) -> Any:
            if not self._steps.marking:
                return original(action, ctx)
            self._begin(kind, action, ctx)
            try:
                return original(action, ctx)
            finally:
                self._end()

        return custom_function

    def _observed_wait(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if (awaited := self._awaited) is not None:
                self._awaited = None
                self._token = self._steps.begin_instruction(lambda: awaited)
            return result

        return wait

    def _begin(self, kind: str | None, action: Any, ctx: Any) -> None:
        if kind is None:
            self._steps.spoil()
            return
        try:
            place = action.stage_index, action.microbatch_index
            name = kind, action.stage_index, self._number(action.microbatch_index)
            awaits = kind in _RECEIVED and place in getattr(ctx.schedule_ref, _RECEIVED[kind])
        except Exception as error:
            self._steps.switch_off(error)
            return
        self.running = True
        if awaits:
            self._awaited = name
        else:
            self._token = self._steps.begin_instruction(lambda: name)

    def _end(self) -> None:
        token, self._token = self._token, None
        awaited, self._awaited, self.running = self._awaited, None, False
        if token is not None:
            self._steps.end_instruction(token)
        if awaited is not None:  # what it waited with wasn't seen
            self._steps.spoil()
