"""The operator: watches EnergyPlans, jobs and node reports, decides, delivers plans. Beside it the admission webhook.

Handlers are thin, everything that decides is a pure function of what the cluster holds (`decide`), and nothing is
remembered that could not be read from the cluster again. Its wings, each of which imports only those above it:

- `facts`: what is seen and decided, as values
- `jobs`: all that knows the kind of a job
- `figures`: what reports say, as numbers
- `injection`: what the trainer's way into a pod is, and what was in its way
- `story`: decides, and tells it in the EnergyPlan's status
- `planning`: the planner in a process of its own
- `control`: reads and writes the cluster
- `webhook`: the admission webhook

`runner` puts the operator together, `metrics` shows it to Prometheus.
"""

from __future__ import annotations

__all__: list[str] = []
