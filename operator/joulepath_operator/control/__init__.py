"""The loop around a decision: reads the cluster, decides, writes. It alone talks to Kubernetes.

- `api`: the Kubernetes API, as little of it as is needed
- `settings`: how kopf works
- `watches`: what it is told to watch
- `index`: what the watches have told
- `queue`: which EnergyPlan is handled when
- `reconcile`: handles one: the observation, the decision, what is written
- `observe`: gathers what is known of it
- `pods`: the pods of its job among that
- `places`: on which nodes these run, and so which ranks count
- `questions`: what the planner is asked for it, and its answer
- `stopping`: beside all that, where injection has to stop
"""

from __future__ import annotations

__all__: list[str] = []
