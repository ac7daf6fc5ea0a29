"""Why ranks of a job don't report: the `Injected` condition before a gang is complete.

The first thing on the way from the job's manifest to its first training step that isn't there: the namespace's
permission, pods, the trainer in them, running containers, an agent on their node, its report, a training step. Where
the node injects, no trainer comes without an agent, so that is looked for before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from joulepath_crds import ANNOTATION
from joulepath_operator.facts.absence import Lack, Way
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.labels import FORBIDDING_LEVELS, INJECTION_LABEL, POD_SECURITY_LABEL
from joulepath_operator.facts.observation import NodeAgent, Observation, Pod, TrainingJob
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.jobs.kinds import kind_of
from joulepath_operator.story.absences import lacking, told

__all__ = ["explain", "how_to_annotate", "rivalry", "silent", "suspension", "without_order"]

_REFUSED: Final = {
    Way.VOLUMES: "If that is for the hostPath volumes that the webhook adds, it adds none here in a moment, and they "
    "come without the trainer.",
    Way.NRI: "Joulepath adds nothing to them.",
}
_UNHEARD: Final = (
    " Nothing there: no Python of that pod that trains has loaded the trainer, or none has taken a training step by "
    "torch's pipelining, Megatron-core, DeepSpeed or an optimizer of torch. python -I, -E and -S never load it, nor "
    "does one that is embedded with a path of its own, whose command sets PYTHONPATH anew, or in a virtual environment "
    "behind another tool's sitecustomize; one that is too old for it may have told an agent that is gone."
)


def silent(pods: Sequence[Pod], gang: Gang | None) -> tuple[Pod, ...]:
    """The pods of which no rank reports."""
    reporting = {rank.pod for rank in gang.ranks} if gang is not None else set()
    return tuple(pod for pod in pods if pod.name not in reporting)


def explain(observation: Observation, job: TrainingJob, gang: Gang | None, *, lasts: bool) -> tuple[str, str]:
    """A reason in CamelCase and a sentence with the remedy; at length once it lasts."""
    pods, resource = observation.pods, kind_of(observation.spec.job).resource
    quiet = silent(pods, gang)
    lack = lacking(pods, quiet)
    if not pods and observation.denied:
        named = f"{resource.kind} {job.name} has no pods, as the API server refuses them"
        why, level = observation.denied.rstrip("."), observation.admission.level if observation.admission else ""
        remedy = _REFUSED[observation.way]
        if level in FORBIDDING_LEVELS:
            enforced = f"as namespace {observation.namespace} enforces Pod Security level {level}"
            remedy = f"The webhook adds nothing to them, {enforced}."
        return "NoPods", f"{named} ({why}). {remedy}"
    if (asked := observation.admission) is not None:
        if not pods and not asked.labelled:
            return Lack.UNLABELLED, _unlabelled(observation, job)
        told_first = lack is not None and lack[0].reason in (Lack.FAILS, Lack.UNLABELLED)
        if asked.level in FORBIDDING_LEVELS and (lack or not pods) and not told_first:
            return "PodSecurityForbids", _forbidden(observation, asked.level, job)
    if not pods:
        return (
            "NoPods",
            f"{resource.kind} {job.name} has no pods yet. If that lasts, see what refuses them (a quota, or a policy): "
            f"kubectl -n {observation.namespace} describe {resource.singular} {job.name}",
        )
    amiss = next(filter(None, map(_amiss, observation.agents)), None)
    if lack and not (amiss and lack[0].reason.surmised and observation.way is Way.NRI):
        absence, without = lack
        whose, restart = f"{resource.kind} {job.name}", _restart(observation, job)
        return absence.reason, told(absence, without, len(pods), observation.way, whose, restart)
    report = f"{len(gang.ranks)} of {gang.world_size} ranks report. " if gang is not None else ""
    if not lack and (waiting := [pod for pod in quiet if pod.waiting]):
        first = waiting[0]
        return (
            "PodsNotRunning",
            f"{report}{len(waiting)} of {len(pods)} pods don't run yet ({first.name}: {first.waiting}). "
            f"If that lasts: kubectl -n {observation.namespace} describe pod {first.name}",
        )
    return (
        (amiss[0], report + amiss[1]) if amiss else _not_training(observation, gang, quiet, _UNHEARD if lasts else "")
    )


def suspension(observation: Observation, job: TrainingJob) -> tuple[str, str]:
    """A reason and a sentence for a job that isn't to run now."""
    named = f"{kind_of(observation.spec.job).resource.kind} {job.name}"
    if not job.queue:
        return "Suspended", f"{named} is suspended; this goes on when it is resumed."
    return (
        "Queued",
        f"{named} is suspended until Kueue admits it from its queue {job.queue}; this goes on by itself then. What it "
        f"waits for: kubectl -n {observation.namespace} describe workloads -l kueue.x-k8s.io/job-uid={job.uid}",
    )


def rivalry(observation: Observation, job: TrainingJob, pods: tuple[str, str]) -> tuple[str, str]:
    """A reason and a sentence for a job of which two pods don't train together."""
    return (
        "SeveralTrainings",
        f"Two trainings in one job: pods {pods[0]} and {pods[1]} of {kind_of(observation.spec.job).resource.kind} "
        f"{job.name} don't train together, so that there is no one plan for them; all GPUs run default clocks. Give "
        "each training a job of its own. If one pod has come in the place of the other, this goes on by itself in a "
        "minute or two.",
    )


def _unlabelled(observation: Observation, job: TrainingJob) -> str:
    namespace = observation.namespace
    return (
        f"The webhook isn't asked about pods of namespace {namespace}: those of {job.name} will train without the "
        "trainer, at default clocks. To have it asked, before they are made: "
        f"kubectl label namespace {namespace} {INJECTION_LABEL}=volumes"
    )


def _forbidden(observation: Observation, level: str, job: TrainingJob) -> str:
    namespace = observation.namespace
    label = f"kubectl label namespace {namespace} {POD_SECURITY_LABEL}=privileged --overwrite"
    return (
        f"Namespace {namespace} enforces Pod Security level {level}, which forbids the hostPath volumes of the trainer "
        "and the agent's socket: nothing was injected, the job runs unharmed and at default clocks. To change "
        f"that: {label}, then {_restart(observation, job)} (with the chart's injection: nri no level forbids it)"
    )


def _amiss(agent: NodeAgent) -> tuple[str, str] | None:
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
    if agent.refused:
        return (
            Refusal.GPU_REFUSED,
            f"No GPU of node {agent.node} can be used: {agent.refused}. Give each rank a whole GPU of its own (no MIG, "
            "time slicing or MPS).",
        )
    return None


def _not_training(observation: Observation, gang: Gang | None, quiet: Sequence[Pod], more: str) -> tuple[str, str]:
    pod = quiet[0].name if quiet else observation.pods[0].name
    log = f"kubectl -n {observation.namespace} logs {pod} | grep joulepath"
    if gang is not None:
        where = f" Pod {pod} reports none." if quiet else ""
        return (
            "RanksMissing",
            f"{len(gang.ranks)} of {gang.world_size} ranks report, each from its first training step on.{where} Until "
            f"all do, the clocks of none are changed. If that lasts while training goes on: {log}.{more}",
        )
    if (topology := observation.status.topology) is not None and observation.status.job_uid:
        return (
            "RanksSilent",
            f"All ranks of the pipeline of {topology.stages} stages have reported before, and none does now: the "
            "training has ended, and its job is about to say so, or agents or training processes start anew. They "
            f"report again with their next training steps. If not: {log}",
        )
    return (
        "WaitingForRanks",
        "The pods run; waiting for the first training step of the ranks. They load libraries and data first; if "
        f"training goes on and this stays: {log}.{more}",
    )


def without_order(gang: Gang) -> str:
    """Why it isn't known yet what each rank runs in an iteration."""
    message, without = (
        "All ranks report; waiting for the first whole iteration of each",
        [rank for rank in gang.ranks if not rank.order],
    )
    if lacking_one := next((rank for rank in without if rank.lacks), None):
        return (
            f"{message}. Of rank {lacking_one.rank}: {lacking_one.lacks}. Train with a version of docs/frameworks.md, "
            "or upgrade Joulepath to a release that knows this one."
        )
    why = next((f" (rank {rank.rank}: {rank.reason})" for rank in without if rank.reason), "")
    return f"{message}{why}."


def how_to_annotate(observation: Observation, job: TrainingJob) -> str:
    """What to do about a job without the annotation."""
    kind = kind_of(observation.spec.job).resource.kind
    return (
        f"{kind} {job.name} has no annotation {ANNOTATION}. Add it to metadata.annotations of its manifest "
        f"({ANNOTATION}: {observation.name}) and apply that; if its pods run already: {_restart(observation, job)}"
    )


def _restart(observation: Observation, job: TrainingJob) -> str:
    return kind_of(observation.spec.job).restart_command(observation.namespace, job.name)
