"""The operator: watches EnergyPlans, jobs and node reports, decides, delivers plans. Beside it the admission webhook.

Handlers are thin, everything that decides is a pure function of what the cluster holds (`decide`), and nothing is
remembered that could not be read from the cluster again.
"""

from __future__ import annotations

__all__: list[str] = []
