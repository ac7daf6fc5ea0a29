"""Why ranks of a job don't report: the `Injected` condition before a gang is complete.

The first thing on the way from the job's manifest to its first training step that isn't there: the namespace's
permission, pods, the trainer in them, running containers, an agent on their node, its report, a training step.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulepath_crds import ANNOTATION
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.labels import FORBIDDING_LEVELS, POD_SECURITY_LABEL
from joulepath_operator.facts.observation import NodeAgent, Observation, Pod, TrainingJob
from joulepath_operator.jobs.kinds import kind_of

__all__ = ["explain", "how_to_annotate", "silent"]


def silent(pods: Sequence[Pod], gang: Gang | None) -> tuple[Pod, ...]:
    """The pods of which no rank reports."""
    reporting = {rank.pod for rank in gang.ranks} if gang is not None else set()
    return tuple(pod for pod in pods if pod.name not in reporting)


def explain(observation: Observation, job: TrainingJob, gang: Gang | None) -> tuple[str, str]:
    """A reason in CamelCase and a sentence with the remedy."""
    pods, resource = observation.pods, kind_of(observation.spec.job).resource
    plain = [pod for pod in pods if not pod.injected]
    if observation.pod_security in FORBIDDING_LEVELS and (plain or not pods):
        return "PodSecurityForbids", _forbidden(observation, job)
    if not pods:
        return (
            "NoPods",
            f"{resource.kind} {job.name} has no pods yet. If that lasts, see why: "
            f"kubectl -n {observation.namespace} describe {resource.singular} {job.name}",
        )
    if told := [pod for pod in plain if pod.without]:
        return _without_trainer(told, observation, job)
    if plain and not observation.nodes_inject:
        return (
            "PodsPredateAnnotation",
            f"{len(plain)} of {len(pods)} pods of {resource.kind} {job.name} were created without the trainer: before "
            "the annotation was there, or while the webhook was away. They train unharmed, at default clocks. To "
            f"inject them, create them again: {_restart(observation, job)}",
        )
    quiet = silent(pods, gang)
    reported = f"{len(gang.ranks)} of {gang.world_size} ranks report. " if gang is not None else ""
    if waiting := [pod for pod in quiet if pod.waiting]:
        first = waiting[0]
        return (
            "PodsNotRunning",
            f"{reported}{len(waiting)} of {len(pods)} pods don't run yet ({first.name}: {first.waiting}). "
            f"If that lasts: kubectl -n {observation.namespace} describe pod {first.name}",
        )
    for agent in observation.agents:
        if why := _without_agent(agent):
            return why[0], reported + why[1]
    if plain:
        return (
            "PodsNotInjected",
            f"{len(plain)} of {len(pods)} pods of {resource.kind} {job.name} run without the trainer, and their nodes "
            "say nothing of it: they were made before the annotation was there, the kubelet tells of no GPU of theirs, "
            "or NRI is switched off in the nodes' container runtime (the log of the agent's container injector says "
            f"so). They train unharmed, at default clocks. To inject them, create them again: "
            f"{_restart(observation, job)}",
        )
    return _not_training(observation, gang, quiet)


def _without_trainer(pods: Sequence[Pod], observation: Observation, job: TrainingJob) -> tuple[str, str]:
    """What the nodes say of these pods."""
    first, why = pods[0], pods[0].without
    assert why is not None
    unharmed = f"{len(pods)} of {len(observation.pods)} pods train unharmed, at default clocks, without the trainer."
    again = f"To inject them, create them again: {_restart(observation, job)}"
    if why.outcome == "Unsuited":
        return "PodsUnsuited", f"{unharmed} {first.name}, container {why.container}: {why.why}"
    if why.outcome == "Late":
        late = f"When {first.name} was made, the agent of node {first.node} had no answer within 100 ms."
        return "AgentLate", f"{unharmed} {late} {again}"
    return "PodsPredateInjector", f"{unharmed} {first.name} is older than the injector of its node. {again}"


def _forbidden(observation: Observation, job: TrainingJob) -> str:
    namespace = observation.namespace
    label = f"kubectl label namespace {namespace} {POD_SECURITY_LABEL}=privileged --overwrite"
    return (
        f"Namespace {namespace} enforces Pod Security level {observation.pod_security}, which forbids the hostPath "
        "volume of the agent's socket: nothing was injected, the job runs unharmed and at default clocks. To change "
        f"that: {label}, then {_restart(observation, job)}"
    )


def _without_agent(agent: NodeAgent) -> tuple[str, str] | None:
    """What is amiss with the agent on a node where the job trains."""
    if agent.pod is None:
        return (
            "NoAgent",
            f"Node {agent.node} has no agent, so the GPUs there can't be measured. Agents run on the nodes that the "
            "chart's agent.nodeSelector and agent.tolerations choose; by default those with the label "
            f"nvidia.com/gpu.present=true: kubectl label node {agent.node} nvidia.com/gpu.present=true",
        )
    if not agent.ready or not agent.reports:
        namespace, _, name = agent.pod.partition("/")
        what = "is not ready" if not agent.ready else "has written no NodeReport"
        return (
            "AgentNotReady" if not agent.ready else "NoNodeReport",
            f"The agent on node {agent.node} {what}. While it starts anew, GPUs run default clocks. If that lasts: "
            f"kubectl -n {namespace} logs {name}",
        )
    return None


def _not_training(observation: Observation, gang: Gang | None, quiet: Sequence[Pod]) -> tuple[str, str]:
    pod = quiet[0].name if quiet else observation.pods[0].name
    log = f"kubectl -n {observation.namespace} logs {pod} | grep joulepath"
    if gang is not None:
        where = f" Pod {pod} reports none." if quiet else ""
        return (
            "RanksMissing",
            f"{len(gang.ranks)} of {gang.world_size} ranks report, each from its first training step on.{where} Until "
            f"all do, the clocks of none are changed. If that lasts while training goes on: {log}",
        )
    if (topology := observation.status.topology) is not None and observation.status.job_uid:
        return (
            "RanksSilent",
            f"All ranks of the pipeline of {topology.stages} stages have reported before, and none does now: agents or "
            f"training processes start anew. They report again with their next training steps. If not: {log}",
        )
    return (
        "WaitingForRanks",
        "The pods run; waiting for the first training step of the ranks. They load libraries and data first; if "
        f"training goes on and this stays: {log} (nothing there: its Python has not loaded the trainer).",
    )


def how_to_annotate(observation: Observation, job: TrainingJob) -> str:
    """What to do about a job without the annotation."""
    kind = kind_of(observation.spec.job).resource.kind
    return (
        f"{kind} {job.name} has no annotation {ANNOTATION}. Add it to metadata.annotations of its manifest "
        f"({ANNOTATION}: {observation.name}) and apply that; if its pods run already: {_restart(observation, job)}"
    )


def _restart(observation: Observation, job: TrainingJob) -> str:
    return kind_of(observation.spec.job).restart_command(observation.namespace, job.name)
