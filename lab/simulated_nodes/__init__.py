"""Simulated nodes on a real control plane, to see how Joulepath grows with nodes and jobs.

etcd, the API server with its limits and priorities, the chart's CRDs, rights and policies, and the operator's own
process are real; so are the agents' code that talks to the API server, with a token of each node, and the conductor
that follows plans. Simulated are nodes, pods, GPUs and time: what is measured of ranks is computed from a known truth.

- `truth`: what work takes, and what agents measure of it
- `job`: which rank stands where
- `ranks`: those of one stage on one node
- `node`: the agent of one
- `counting`: its calls and their bytes
- `fleet`: many nodes in a process
- `place`: the control plane
- `release`: what the chart has
- `population`: objects made bare
- `watching`: what becomes of plans
- `readings`: what processes have taken
- `world`: all together
"""

from __future__ import annotations

__all__: list[str] = []
