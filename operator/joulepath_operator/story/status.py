"""How a status is told: phase, one sentence, and the five conditions, each with reason and remedy.

A condition's lastTransitionTime moves only when its status does. Conditions that a decision says nothing of are told
as not reached yet, so that `kubectl describe` always shows the whole way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from joulepath_crds import Condition, EnergyPlanStatus, Phase

__all__ = ["CONDITIONS", "Story"]

_AHEAD: Final = {
    "Injected": "Comes first: the pods of the job are made with the trainer in them, and every rank reports.",
    "Profiled": "Comes once every rank reports: the work is measured at several clocks, or a stored profile is taken.",
    "Planned": "Comes once the work is profiled.",
    "Active": "Comes once there is a plan and every rank has it.",
}
CONDITIONS: Final = (*_AHEAD, "Degraded")


@dataclass(slots=True)
class Story:
    """Collects what a decision finds on its way, in order, and ends in a status."""

    base: EnergyPlanStatus
    """The status so far, of this same run of the job; a blank one for a new run."""
    before: tuple[Condition, ...]
    """Conditions as they stand in the cluster."""
    now: str
    generation: int
    _told: dict[str, Condition] = field(default_factory=dict)
    _changes: dict[str, Any] = field(default_factory=dict)

    def tell(self, kind: str, holds: bool | None, reason: str, message: str) -> None:
        """States a condition; None: it isn't known yet."""
        status = "Unknown" if holds is None else "True" if holds else "False"
        self._told[kind] = self._condition(kind, status, reason, message)

    def lasted_s(self, kind: str, status: str) -> float | None:
        """For how long a condition has stood at this status; None where it doesn't."""
        if (old := self._old(kind)) is None or old.status != status:
            return None
        return (datetime.fromisoformat(self.now) - datetime.fromisoformat(old.last_transition_time)).total_seconds()

    def note(self, **changes: Any) -> None:
        """Sets other fields of the status."""
        self._changes.update(changes)

    def end(
        self, phase: Phase, message: str, *, progress: str | None = None, carry: tuple[str, ...] = ()
    ) -> EnergyPlanStatus:
        """The status; conditions of the kinds in `carry` stay as this run left them, where nothing was told of them."""
        for one in self.base.conditions:
            if one.type in carry:
                self._told.setdefault(one.type, one)
        self._told.setdefault("Degraded", self._condition("Degraded", "False", "AsExpected", "Nothing is amiss."))
        conditions = tuple(
            self._told.get(kind) or self._condition(kind, "Unknown", "NotYet", _AHEAD[kind]) for kind in CONDITIONS
        )
        return self._status({"phase": phase, "message": message, "progress": progress, "conditions": conditions})

    def keep(self, **changes: Any) -> EnergyPlanStatus:
        """The status as it was, but for these fields and the conditions told."""
        conditions = tuple(self._told.get(one.type, one) for one in self.base.conditions)
        return self._status({"conditions": conditions, **changes})

    def _status(self, changes: Mapping[str, Any]) -> EnergyPlanStatus:
        update = {"observed_generation": self.generation, **self._changes, **changes}
        return self.base.model_copy(update=update)

    def _old(self, kind: str) -> Condition | None:
        return next((one for one in self.before if one.type == kind), None)

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Condition:
        old = self._old(kind)
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=old.last_transition_time if old and old.status == status else self.now,
            observed_generation=self.generation,
        )
