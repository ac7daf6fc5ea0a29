"""Observes functions that take the place of torch's own in a schedule (`register_custom_function`), as torchtitan's do.

Facts about torch (2.15, read in its source):

- A custom function is given an action (its kind, stage and microbatch) and a context with the schedule. It waits by
  itself for what its stage receives, with `_wait_batch_p2p` and what stands in `fwd_recv_ops` or `bwd_recv_ops`: where
  something stands there, the instruction begins once that was waited for.
- One for `OVERLAP_F_B` runs a forward and a full backward interleaved, a pair, perhaps by two threads. It begins once
  what both need was waited for, and at the latest when one of them computes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.steps import Name, Steps, pair
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
        self._awaited: list[Name] = []
        """An instruction that begins once its input is there. Lists, since only one thread gets what is popped."""
        self._waits: list[None] = []
        """As many as it still waits for."""
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
                custom_function = self._observed(custom_function)
            return original(schedule, computation_type, custom_function)

        return register_custom_function

    def _observed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def custom_function(action: Any, ctx: Any) -> Any:
            if not self._steps.marking:
                return original(action, ctx)
            self._begin(action, ctx)
            try:
                return original(action, ctx)
            finally:
                self._end()

        return custom_function

    def _observed_wait(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if self._awaited:
                del self._waits[-1:]
                if not self._waits:
                    self.compute()
            return result

        return wait

    def compute(self) -> None:
        """What is awaited begins now, if it hasn't."""
        try:
            awaited = self._awaited.pop()
        except IndexError:
            return
        self._token = self._steps.begin_instruction(lambda: awaited)

    def _begin(self, action: Any, ctx: Any) -> None:
        try:
            is_pair = action.computation_type.name == _OVERLAP
            parts = [self._part(one, ctx) for one in (action.sub_actions if is_pair else (action,))]
            if is_pair and [kind for kind, *_ in parts] != ["F", "B"]:
                self._steps.spoil()
                return
            (kind, *place, _), *behind = parts
            self._awaited = [pair((place[0], place[1]), behind[0][1:3]) if behind else (kind, place[0], place[1])]
            self._waits = [None for *_, awaits in parts if awaits]
        except Exception as error:
            self._steps.switch_off(error)
            return
        self.running = True
        if not self._waits:
            self.compute()

    def _part(self, action: Any, ctx: Any) -> tuple[str, int, int, bool]:
        """Kind, stage and microbatch in the iteration, and whether its input has to be waited for."""
        kind, place = _KINDS[action.computation_type.name], (action.stage_index, action.microbatch_index)
        awaits = kind in _RECEIVED and place in getattr(ctx.schedule_ref, _RECEIVED[kind])
        return kind, place[0], self._number(place[1]), awaits

    def _end(self) -> None:
        token, self._token = self._token, None
        awaited, self._awaited, self._waits, self.running = self._awaited, [], [], False
        if token is not None:
            self._steps.end_instruction(token)
        if awaited:  # what it waited with wasn't seen
            self._steps.spoil()
