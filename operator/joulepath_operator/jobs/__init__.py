"""All that knows the kind of a training job; the rest of the operator knows jobs only.

- `interface`: what a kind of job has to tell
- `pytorchjob`: the Kubeflow training-operator's PyTorchJob
- `kinds`: the kinds that are supported, and which one a job is of
"""

from __future__ import annotations

__all__: list[str] = []
