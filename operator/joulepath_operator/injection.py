"""Why the ranks of a job don't report yet: the `Injected` condition before a gang is complete."""

from __future__ import annotations

from joulepath_crds import ANNOTATION
from joulepath_operator.gang import Gang
from joulepath_operator.observation import Job, Observation

POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
FORBIDDING_LEVELS = frozenset({"baseline", "restricted"})
"""Pod Security levels that refuse hostPath volumes, and so the agent's socket."""


def explain(observation: Observation, job: Job, gang: Gang | None) -> tuple[str, str]:
    """A reason in CamelCase and a sentence with the remedy."""
    namespace, level = observation.namespace, observation.pod_security
    if level in FORBIDDING_LEVELS:
        label = f"kubectl label namespace {namespace} {POD_SECURITY_LABEL}=privileged --overwrite"
        return (
            "PodSecurityForbids",
            f"Namespace {namespace} enforces Pod Security level {level}, which forbids the hostPath volume of the "
            "agent's socket: nothing was injected, the job runs unharmed and at default clocks. To change that: "
            f"{label}, then {restart(observation, job)}",
        )
    if gang is not None:
        return (
            "RanksMissing",
            f"{len(gang.ranks)} of {gang.world_size} ranks report. The others have not begun to train, or their pods "
            "were not injected, or no agent runs on their nodes (kubectl get nodereports).",
        )
    if not observation.pods:
        return "NoPods", f"PyTorchJob {job.name} has no pods yet."
    if not all(observation.pods):
        plain = len(observation.pods) - sum(observation.pods)
        return (
            "PodsPredateAnnotation",
            f"{plain} of {len(observation.pods)} pods of PyTorchJob {job.name} were created without the trainer: "
            "before the annotation was there, or while the webhook was away. They train unharmed, at default clocks. "
            f"To inject them, create them again: {restart(observation, job)}",
        )
    return (
        "WaitingForRanks",
        "The pods are injected; no rank has begun to train. If training runs, see the log of the agent on its node "
        "and that of the pod (lines with joulepath).",
    )


def restart(observation: Observation, job: Job) -> str:
    """The command that starts a job anew as it is."""
    where = f"-n {observation.namespace}"
    return f"kubectl {where} get pytorchjob {job.name} -o yaml | kubectl {where} replace --force -f -"


def how_to_annotate(observation: Observation, job: Job) -> str:
    """What to do about a job without the annotation."""
    return (
        f"PyTorchJob {job.name} has no annotation {ANNOTATION}. Add it to metadata.annotations of its manifest "
        f"({ANNOTATION}: {observation.name}) and apply that; if its pods run already: {restart(observation, job)}"
    )
