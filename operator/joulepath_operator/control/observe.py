"""Gathers what is known of one EnergyPlan: from the index, and from the API what no watch tells of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

from joulepath_crds import JobName, controller
from joulepath_operator.control.api import Api, Body
from joulepath_operator.control.index import Index
from joulepath_operator.control.places import Places
from joulepath_operator.control.pods import as_seen
from joulepath_operator.facts.absence import Means, Way
from joulepath_operator.facts.admission import Stop
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeAgent, Observation, Pod, TrainingJob
from joulepath_operator.facts.policy import needs_labels
from joulepath_operator.jobs.kinds import is_supported, kind_of
from joulepath_operator.story.gathering import silent

__all__ = ["with_job"]

_AGENTS_ASKED: Final = 3
"""Nodes whose agents are looked up while ranks are missing: a message names no more."""
_DENIALS_READ: Final = 100
"""Anybody may have many more Events; they are looked for again and again while a job has no pods."""


def with_job(
    seen: Observation,
    api: Api,
    index: Index,
    means: Means,
    places: Places,
    stops: Mapping[str, Stop] | None = None,
) -> Observation:
    """The observation with the job, what nodes tell of its own pods and, once all ranks report, profiles; before, why
    they don't.

    A job that the index doesn't have is asked for: a deletion is nothing to be wrong about.
    """
    if not is_supported(seen.spec.job):
        return seen
    if needs_labels(seen.policy, seen.namespace):
        seen = replace(seen, namespace_labels=api.labels(seen.namespace))
    kind, where = kind_of(seen.spec.job), (seen.namespace, seen.spec.job.name)
    job = index.job(kind.resource, where)
    if job is None and (found := api.get(kind.resource, where)) is not None:
        job = kind.read(found)
    if job is None:
        return seen
    told, found_pods = index.nodes(seen.namespace, job.uid), list[Body]()
    nodes, outdated = places.standing(job.uid, told)
    if outdated:
        found_pods += _pods_of(job, f"{kind.pod_label}={job.name}", seen.namespace, api, index)
        places.put(job.uid, found_pods)
        nodes, _ = places.standing(job.uid, told)
    gang = Gang.of(nodes)
    if gang is not None and gang.complete:
        return replace(seen, job=job, nodes=nodes, profiles=index.profiles(seen.namespace))
    admission = None
    if means.way is Way.VOLUMES:
        admission = replace(api.admission(seen.namespace), stop=(stops or {}).get(seen.namespace))
    maker = kind.pods_made_by
    uid = job.uid if maker.kind == kind.resource.kind else None
    denials = () if found_pods else api.denials(seen.namespace, maker.kind, kind.denied, uid)
    of_job = (
        one
        for one in islice(denials, _DENIALS_READ)
        if _stands_behind(job, JobName(maker, one.job, one.uid), seen.namespace, index)
    )
    newest = max(of_job, key=lambda one: one.at, default=None)
    pods = tuple(as_seen(pod, job, index, means, admission, seen.now) for pod in found_pods)
    quiet = {pod.node for pod in silent(pods, gang) if pod.node and not pod.waiting and _may_train(pod)}
    first = sorted(quiet, key=lambda node: (index.report(node) is not None, node))[:_AGENTS_ASKED]
    return replace(
        seen,
        job=job,
        nodes=nodes,
        way=means.way,
        admission=admission,
        pods=pods,
        denied=newest.why if newest else "",
        agents=tuple(_agent(node, api, index) for node in first),
    )


def _pods_of(job: TrainingJob, selector: str, namespace: str, api: Api, index: Index) -> Iterator[Body]:
    """The pods that a selector finds, of this very run of a job."""
    for pod in api.pods(namespace, selector):
        owner = controller(pod["metadata"])
        if owner is not None and _stands_behind(job, owner, namespace, index):
            yield pod


def _stands_behind(job: TrainingJob, made: JobName, namespace: str, index: Index) -> bool:
    """Whether it is that one, or has made it: this very run of a job, and no other of its name."""
    if made.uid == job.uid:
        return True
    topmost = index.topmost(namespace, made)
    return topmost is not None and topmost.uid == job.uid


def _may_train(pod: Pod) -> bool:
    """Whether its agent matters: else it is known why the pod has no trainer, whatever its node's agent does."""
    return pod.absence is None or pod.absence.reason.surmised


def _agent(node: str, api: Api, index: Index) -> NodeAgent:
    (pod, ready), report = api.agent(node), index.report(node)
    gpus = report.gpus if report is not None else ()
    refused = gpus[0].refused if gpus and all(gpu.refused for gpu in gpus) else None
    return NodeAgent(node, pod, ready, report is not None, refused or "")
