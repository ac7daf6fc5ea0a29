"""The demo: the published GPT-3 experiment on a real cluster with virtual GPUs, from nothing to a measured saving.

`make demo`, or `python -m demo --help`. The training script and the manifests are those of `examples/01-pytorchjob`;
all numbers that the demo shows come from the cluster's API objects and metrics, none is put in.
"""

from __future__ import annotations

__all__: list[str] = []
