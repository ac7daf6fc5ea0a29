"""Gathers what is known of one EnergyPlan: from the index, and from the API what no watch tells of."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from joulepath_operator.control.api import Api
from joulepath_operator.control.index import Index
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeAgent, Observation
from joulepath_operator.jobs.kinds import is_supported, kind_of
from joulepath_operator.story.gathering import silent

__all__ = ["with_job"]

_AGENTS_ASKED: Final = 3
"""Nodes whose agents are looked up while ranks are missing: a message names no more."""


def with_job(seen: Observation, api: Api, index: Index) -> Observation:
    """The observation with the job, its nodes' reports and, once all ranks report, profiles; before, why they don't.

    A job that the index doesn't have is asked for: a deletion is nothing to be wrong about.
    """
    if not is_supported(seen.spec.job):
        return seen
    kind, where = kind_of(seen.spec.job), (seen.namespace, seen.spec.job.name)
    job = index.job(kind.resource, where)
    if job is None and (found := api.get(kind.resource, where)) is not None:
        job = kind.read(found)
    if job is None:
        return seen
    nodes = index.nodes(seen.namespace, job.uid)
    gang = Gang.of(nodes)
    if gang is not None and gang.complete:
        return replace(seen, job=job, nodes=nodes, profiles=index.profiles(seen.namespace))
    pods = api.pods(seen.namespace, kind.pod_selector(job.name), job.uid, index.injections(seen.namespace))
    quiet = {pod.node for pod in silent(pods, gang) if pod.node and not pod.waiting}
    return replace(
        seen,
        job=job,
        nodes=nodes,
        pod_security=None if api.nodes_inject else api.pod_security(seen.namespace),
        nodes_inject=api.nodes_inject,
        pods=pods,
        agents=tuple(_agent(node, api, index) for node in sorted(quiet)[:_AGENTS_ASKED]),
    )


def _agent(node: str, api: Api, index: Index) -> NodeAgent:
    pod, ready = api.agent(node)
    return NodeAgent(node, pod, ready, index.reports(node))
