"""An agent as far as its ties to Kubernetes know one."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import EnergyPolicySpec, JobPlanSpec, NodeReportStatus

__all__ = ["TiedAgent"]


@dataclass
class TiedAgent:
    """What it says, and what it was told."""

    jobs: frozenset[JobKey] = frozenset()
    status: NodeReportStatus = field(default_factory=NodeReportStatus)
    waits: bool = False
    plans: list[Mapping[JobKey, JobPlanSpec | Reason]] = field(default_factory=list)
    about: list[Collection[JobKey]] = field(default_factory=list)
    """The jobs that these were of."""
    heard_at_s: float = 0.0
    """When plans were handed on last."""
    reports: int = 0
    """How often it was asked for one."""
    forgets: int = 0
    policies: list[EnergyPolicySpec] = field(default_factory=list)

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason], jobs: Collection[JobKey]) -> None:
        """See Tied."""
        self.plans.append(plans)
        self.about.append(jobs)
        self.heard_at_s = time.monotonic()

    def forget_plans(self) -> None:
        """See Tied."""
        self.forgets += 1

    def set_policy(self, policy: EnergyPolicySpec) -> None:
        """See Tied."""
        self.policies.append(policy)

    def report(self) -> NodeReportStatus:
        """See Tied."""
        self.reports += 1
        return self.status
