"""What is seen of the cluster and what is decided about it: plain values that read and write nothing.

- `names`: how Kubernetes names things
- `labels`: labels and annotations
- `refusals`: why a job gets no plan
- `absence`: why a pod has no trainer
- `admission`: what its namespace says of that
- `exchanges`: when messages leave a rank, and when they are awaited
- `iteration`: a rank's iteration at default clocks, packed
- `request`: what the planner is asked, and its answer
- `lags`: the lags of several GPUs as one
- `observation`: what a decision is made from, and what it is
- `policy`: what the cluster's EnergyPolicy leaves of what an EnergyPlan asks for
- `gang`: the ranks of one attempt of a job
"""

from __future__ import annotations

__all__: list[str] = []
