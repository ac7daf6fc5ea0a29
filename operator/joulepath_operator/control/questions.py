"""What the planner is asked, for which EnergyPlan: one question each, and its answer once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from joulepath_operator.facts.names import NamespacedName
from joulepath_operator.facts.request import Answer, Request

__all__ = ["Planner", "Questions"]


class Planner(Protocol):
    """What computes plans, elsewhere."""

    def plan(self, request: Request, namespace: str) -> Awaitable[Answer]: ...


@dataclass(frozen=True, slots=True)
class _Question:
    request: Request
    answer: asyncio.Future[Answer]


class Questions:
    """`answered` is called with each EnergyPlan whose plan has been computed."""

    def __init__(self, planner: Planner, answered: Callable[[NamespacedName], object]) -> None:
        self._planner, self._answered = planner, answered
        self._open: dict[NamespacedName, _Question] = {}

    def answer(self, key: NamespacedName) -> tuple[Request | None, Answer | None]:
        """What the planner was asked and, once it has, answered; a planner that failed is asked anew.

        Raises:
            Exception: What the planner has failed with.
        """
        question = self._open.get(key)
        if question is None:
            return None, None
        if not question.answer.done():
            return question.request, None
        if (error := question.answer.exception()) is not None:
            del self._open[key]
            raise error
        return question.request, question.answer.result()

    def ask(self, key: NamespacedName, request: Request) -> None:
        """Lets the planner compute this and nothing else for an EnergyPlan."""
        question = self._open.get(key)
        if question is not None and question.request.inputs == request.inputs:
            return
        self.stop(key)
        answer = asyncio.ensure_future(self._planner.plan(request, key[0]))
        self._open[key] = _Question(request, answer)
        answer.add_done_callback(lambda done: None if done.cancelled() else self._answered(key))

    def stop(self, key: NamespacedName) -> None:
        """Nobody asks for this plan any more."""
        if (question := self._open.pop(key, None)) is not None:
            question.answer.cancel()
