"""How a pod without the trainer is told: one sentence for each reason, each with its remedy.

They all train as if there were no Joulepath, and so does a job of which only some pods have it: its clocks are changed
once every rank reports, and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from joulepath_operator.facts.absence import Absence, Lack, Way
from joulepath_operator.facts.labels import INJECTION_LABEL
from joulepath_operator.facts.observation import Pod

__all__ = ["lacking", "told"]

_INJECT: Final = "They train unharmed, at default clocks. To inject them, create them again: {restart}"
_SERVE: Final = (
    "They have the trainer, by the webhook of before, and train unharmed, at default clocks: without the runtime's "
    "word no agent knows whose a GPU is. They are served again, as they run, once that is mended, or with the chart's "
    "injection: volumes."
)

_SENTENCES: Final = {
    Lack.FAILS: (
        "{pods} can't start, as the init container that came with the trainer fails ({why}). Pods of their namespace "
        "get none for now, so those that are made anew train, at default clocks: {restart}. See that an agent runs on "
        "that node: it puts there what the init container runs."
    ),
    Lack.UNLABELLED: (
        "{pods} were created in a namespace that the webhook isn't asked about. To have it asked: "
        f"kubectl label namespace {{why}} {INJECTION_LABEL}=volumes. {_INJECT}"
    ),
    Lack.UNSUITED: (
        "{pods} can't take the trainer: {why}. They train unharmed, at default clocks. To inject them, change that in "
        "the job's manifest and create them again: {restart}"
    ),
    Lack.BEFORE: f"{{pods}} ran before the injector of their node did. {_INJECT}",
    Lack.LATE: (
        "{pods} started without the trainer: the agent of the node had no answer within 0.1 s. Where that comes again, "
        f"its log says who is slow, the kubelet or the API server. {_INJECT}"
    ),
    Lack.OLD_PYTHON: (
        "{pods} import torch where the trainer can't run: {why}. They train unharmed, at default clocks. To have them "
        "observed, take an image whose Python is new enough, and create them again: {restart} (If another Python of "
        "theirs trains, its first training step is waited for.)"
    ),
    Lack.NO_INJECTOR: (
        "{pods} run where no injector is: the agent of the node has found none. See the container injector of the "
        "agent's pod there; it is one of those that the chart makes with injection: nri. {then}"
    ),
    Lack.NRI_OFF: (
        "{pods} run where NRI is off: the container runtime of the node tells our injector of no pod. Switch it on and "
        "start the runtime anew, which ends no container (containerd before 2.0: disable = false in "
        '[plugins."io.containerd.nri.v1.nri"]; CRI-O: enable_nri = true in [crio.nri]), or install with the chart\'s '
        "injection: volumes. {then}"
    ),
    Lack.NRI_FAILS: (
        "{pods} run where the container runtime of the node has NRI on, but refuses our injector or tells it nothing: "
        "{why}. The log of the container injector in the agent's pod there has more, and so has the runtime's. If it "
        "can't be mended: the chart's injection: volumes. {then}"
    ),
    Lack.UNREPORTED: (
        "{pods} run where the node's report doesn't say whether there is an injector: the agent there is of an older "
        "release, or the cluster's CRDs are, and drop what they don't know. Apply the chart's CRDs (helm "
        "upgrade does with crds.install, kubectl apply --server-side -f crds/ by hand), and see that the agents' "
        "rollout is complete. {then}"
    ),
    Lack.UNANNOTATED: f"{{pods}} were created before the job's annotation was last written ({{why}}). {_INJECT}",
    Lack.BEFORE_LABEL: (
        f"{{pods}} were created before the label {INJECTION_LABEL}=volumes was last written at their namespace "
        f"({{why}}). {_INJECT}"
    ),
    Lack.STOPPED: (
        "{pods} were created while injection was stopped in their namespace, as its init container had kept a pod from "
        "starting ({why}). Once in a while one pod gets it all the same, and when one has passed, all do. Pods whose "
        f"containers with GPUs set PYTHONPATH in their env need no init container, and get the trainer now. {_INJECT}"
    ),
    Lack.DENIED: (
        "{pods} were created while injection was stopped in their namespace, as the API server had refused a pod "
        "there, which may be for what the webhook adds ({why}). Once in a while one pod is tried with it all the same, "
        "and when one has been let in, all get it. Let the policy allow the node's folders /run/joulepath and "
        "/var/lib/joulepath/trainer as read-only hostPath volumes, or install with the chart's injection: nri, which "
        f"adds nothing to pods. {_INJECT}"
    ),
    Lack.NO_GPU: (
        "{pods} hold no GPU: {why}. Ask for a whole GPU for each rank in the job's manifest (no MIG, time slicing or "
        "MPS), and create them again: {restart}"
    ),
}
_MISSED: Final = {
    Way.VOLUMES: (
        "{pods} were created without the trainer, and nothing in them is in its way: the webhook wasn't asked, or had "
        "no answer in time, or nodes have given it to them (injection: nri, before), and their ranks are to report "
        "again. See whether it runs (kubectl get pods -A -l app.kubernetes.io/part-of=joulepath,"
        f"app.kubernetes.io/component=webhook), and its log. {_INJECT}"
    ),
    Way.NRI: (
        "{pods} run without the trainer, and nothing that is known is in its way: the agent of the node named none of "
        "their containers to the injector. Its log says whether the kubelet or the API server couldn't be asked, or "
        f"names no GPU of theirs. {_INJECT}"
    ),
}


def lacking(pods: Sequence[Pod], quiet: Sequence[Pod]) -> tuple[Absence, tuple[Pod, ...]] | None:
    """The first of the reasons why pods have no trainer, as its first pod tells it, and all pods that it holds for.

    A pod without a GPU is no rank, unless every pod that doesn't report, `quiet`, is such a one. What is
    surmised of a pod that reports is wrong.
    """
    found = [(one.absence, one) for one in pods if one.absence and (one in quiet or not one.absence.reason.surmised)]
    if not all(pod.absence is not None and pod.absence.reason is Lack.NO_GPU for pod in quiet):
        found = [(absence, pod) for absence, pod in found if absence.reason is not Lack.NO_GPU]
    if not found:
        return None
    worst = min((absence for absence, _ in found), key=_rank)
    return worst, tuple(pod for absence, pod in found if _rank(absence) == _rank(worst))


def told(absence: Absence, pods: Sequence[Pod], total: int, way: Way, job: str, restart: str) -> str:
    """The sentence, of these of a job's pods; `restart` is the command that makes them anew."""
    where = f" on node {pods[0].node}" if pods[0].node else ""
    named = f"{len(pods)} of {total} pods of {job} ({'such as ' if len(pods) > 1 else ''}{pods[0].name}{where})"
    sentence = _MISSED[way] if absence.reason is Lack.MISSED else _SENTENCES[absence.reason]
    then = (_SERVE if absence.by_webhook else _INJECT).format(restart=restart)
    return sentence.format(pods=named, why=absence.why or "it hasn't said why", then=then, restart=restart)


def _rank(absence: Absence) -> tuple[int, bool]:
    return absence.reason.rank, absence.by_webhook
