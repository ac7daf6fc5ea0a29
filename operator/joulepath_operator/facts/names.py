"""How Kubernetes names things: an object by namespace and name, among those of its resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from joulepath_crds import GROUP, VERSION

__all__ = [
    "ENERGY_PLANS",
    "ENERGY_POLICIES",
    "ENERGY_PROFILES",
    "JOB_PLANS",
    "NODE_MEASUREMENTS",
    "NODE_REPORTS",
    "NODE_STATES",
    "NamespacedName",
    "Resource",
]

NamespacedName = tuple[str, str]
"""Namespace and name; a cluster-scoped object's namespace is empty."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the API. `remedy` is what to do where a cluster doesn't know it, which may be well: `optional`."""

    group: str
    version: str
    plural: str
    kind: str
    remedy: str
    optional: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    @property
    def singular(self) -> str:
        """As kubectl takes it."""
        return self.kind.lower()


def _ours(plural: str, kind: str, *, optional: bool = False) -> Resource:
    remedy = "apply the CRDs of Joulepath (kubectl apply -f crds/, or the chart with crds.install=true)"
    return Resource(GROUP, VERSION, plural, kind, remedy, optional)


ENERGY_PLANS: Final = _ours("energyplans", "EnergyPlan")
ENERGY_POLICIES: Final = _ours("energypolicies", "EnergyPolicy", optional=True)
ENERGY_PROFILES: Final = _ours("energyprofiles", "EnergyProfile")
JOB_PLANS: Final = _ours("jobplans", "JobPlan")
NODE_REPORTS: Final = _ours("nodereports", "NodeReport")
NODE_STATES: Final = _ours("nodestates", "NodeState")
NODE_MEASUREMENTS: Final = _ours("nodemeasurements", "NodeMeasurement")
