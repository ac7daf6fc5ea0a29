"""All that knows the kind of a training job; the rest of the operator knows jobs only.

- `interface`: what a kind of job has to tell
- `reading`: what the kinds' objects have in common
- `pytorchjob`: the Kubeflow training-operator's PyTorchJob
- `job`: Kubernetes' own Job
- `jobset`: JobSet, which makes Jobs
- `trainjob`: the Kubeflow Trainer's TrainJob, which makes a JobSet
- `kinds`: the kinds that are supported, and which one a job is of
"""

from __future__ import annotations

__all__: list[str] = []
