"""The loop around a decision: reads the cluster, decides, writes. It alone talks to Kubernetes.

- `api`: the Kubernetes API, as little of it as is needed
- `watches`: what kopf is told to watch
- `index`: what the watches have told
- `queue`: which EnergyPlan is handled when
- `reconcile`: handles one
"""

from __future__ import annotations

__all__: list[str] = []
