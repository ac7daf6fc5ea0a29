"""Why a pod of an annotated job has no trainer, from the pod itself and the report of its node.

Where the webhook puts it into pods, the webhook's own patch says what is in the way, or that nothing is: then nobody
asked it, since the namespace lacks the label, or too early, or injection was stopped. Where the node injects, its
injector has met the containers and told what became of each; of a pod that it says nothing of, the node's report says
at least whether there is one, and whether the runtime tells it of pods. Where it doesn't, no agent knows whose a GPU
is: pods that the webhook had injected before aren't served either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from joulepath_crds import INJECTOR_ABSENT, INJECTOR_READY, INJECTOR_UNHEARD, INJECTOR_UNTOLD, NodeReportStatus
from joulepath_operator.facts.absence import Absence, Lack, Means, Way
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.breaker import failure
from joulepath_operator.injection.patch import inject, left_out, system_of

__all__ = ["INJECTED", "OUTCOMES", "diagnose"]

INJECTED: Final = "Injected"
OUTCOMES: Final = {"Unsuited": Lack.UNSUITED, "Before": Lack.BEFORE, "Late": Lack.LATE}
"""What else the injector tells of a container, the worst first."""
_STATES: Final = {
    INJECTOR_ABSENT: Lack.NO_INJECTOR,
    INJECTOR_UNTOLD: Lack.NRI_OFF,
    INJECTOR_UNHEARD: Lack.NRI_FAILS,
}
_SETTLED_S: Final = 10.0
"""How long a container runs until its node's report must have told of it: that is written within seconds, and
the clocks of two machines may differ."""


def diagnose(
    pod: Mapping[str, Any],
    report: NodeReportStatus | None,
    means: Means,
    admission: Admission | None,
    annotated_at: str | None,
    now: str,
) -> Absence | None:
    """Why a pod's containers have no trainer, or aren't served, or the trainer's init container holds the pod up; None
    where all is well, or it can't be told yet.

    Args:
        pod: As the API server has it.
        report: That of its node, if there is one.
        means: How pods get the trainer.
        admission: What its namespace says of that; it matters to volumes only.
        annotated_at: When its job had the annotation at the latest, in RFC 3339.
        now: The time, likewise.
    """
    metadata = pod["metadata"]
    own = [one for one in report.injection if one.pod_uid == metadata["uid"]] if report else []
    told = {one.outcome: f"container {one.container}: {one.why.rstrip('.')}" if one.why else "" for one in own}
    by_webhook = INJECTED_ANNOTATION in (metadata.get("annotations") or {})
    if absence := _too_old(metadata, report) or (_held_up(pod) if by_webhook else None):
        return absence
    if by_webhook and means.way is Way.VOLUMES:
        return Absence(Lack.UNSUITED, why) if (why := left_out(pod, means.gpu_resources)) else None
    if INJECTED in told:
        return None
    if means.way is Way.VOLUMES:
        asked = admission or Admission(metadata.get("namespace", ""))
        return _in_the_webhooks_way(pod, means.gpu_resources, asked) or _unasked(metadata, annotated_at, asked)
    if not by_webhook and (absence := _as_told(told) or _no_injectors_business(pod["spec"])):
        return absence
    if report is None or not _runs_for(pod, now, _SETTLED_S):
        return None
    if report.injector != INJECTOR_READY:
        return Absence(_STATES.get(report.injector, Lack.UNREPORTED), report.injector_why.rstrip("."), by_webhook)
    return None if by_webhook else _unasked(metadata, annotated_at)


def _too_old(metadata: Mapping[str, Any], report: NodeReportStatus | None) -> Absence | None:
    """The Python of one of its processes."""
    for python in report.old_pythons if report else ():
        if python.pod_uid == metadata["uid"]:
            what = f"its Python {python.version} is older than the {python.needed} that the trainer needs"
            return Absence(Lack.OLD_PYTHON, what)
    return None


def _held_up(pod: Mapping[str, Any]) -> Absence | None:
    """By the init container that comes with the trainer."""
    return Absence(Lack.FAILS, why) if (why := failure(pod)) else None


def _as_told(told: Mapping[str, str]) -> Absence | None:
    """The worst that the injector has told of one of the pod's containers."""
    return next((Absence(lack, told[outcome]) for outcome, lack in OUTCOMES.items() if outcome in told), None)


def _in_the_webhooks_way(pod: Mapping[str, Any], resources: Sequence[str], asked: Admission) -> Absence | None:
    spec = pod["spec"]
    owners = {"ownerReferences": pod["metadata"].get("ownerReferences")}
    outcome = inject({"metadata": owners, "spec": spec}, resources)
    if (outcome.patch or outcome.obstacles) and not asked.labelled:
        return Absence(Lack.UNLABELLED, asked.namespace)
    if outcome.patch:
        stop = asked.stop
        if stop is not None and stop.covers(pod["metadata"]["creationTimestamp"], outcome.starts_first):
            return Absence(Lack.DENIED if stop.denied else Lack.STOPPED, f"since {stop.since}: {stop.why}")
        return None
    if outcome.obstacles:
        return Absence(Lack.UNSUITED, outcome.obstacles[0])
    wanted = f"no container has a limit of {' or '.join(resources)}"
    if _has_claims(spec):
        return Absence(
            Lack.NO_GPU,
            f"{wanted}, and of devices by a claim (DRA) the webhook knows nothing: the chart's injection: nri does",
        )
    if others := sorted(_devices(spec)):
        return Absence(
            Lack.NO_GPU,
            f"{wanted}, but of {', '.join(others)}: a whole GPU by that name has to be in the chart's "
            "webhook.gpuResource",
        )
    return Absence(Lack.NO_GPU, wanted)


def _no_injectors_business(spec: Mapping[str, Any]) -> Absence | None:
    if (system := system_of(spec)) != "linux":
        return Absence(Lack.UNSUITED, f"its system is {system}")
    if not _has_claims(spec) and not _devices(spec):
        return Absence(Lack.NO_GPU, "no container asks for one")
    return None


def _unasked(metadata: Mapping[str, Any], annotated_at: str | None, asked: Admission | None = None) -> Absence:
    """Nothing in the pod is in the way: it came before job or namespace asked for the trainer, or nobody gave it."""
    created_at = metadata["creationTimestamp"]
    if annotated_at is not None and created_at < annotated_at:
        return Absence(Lack.UNANNOTATED, annotated_at)
    if asked is not None and asked.labelled_at is not None and created_at < asked.labelled_at:
        return Absence(Lack.BEFORE_LABEL, asked.labelled_at)
    return Absence(Lack.MISSED)


def _devices(spec: Mapping[str, Any]) -> set[str]:
    """Resources that device plugins offer."""
    limits = (((one.get("resources") or {}).get("limits") or {}).items() for one in spec["containers"])
    named = (name for own in limits for name, amount in own if str(amount) != "0")
    return {name for name in named if "/" in name and not name.partition("/")[0].endswith("kubernetes.io")}


def _has_claims(spec: Mapping[str, Any]) -> bool:
    return any((one.get("resources") or {}).get("claims") for one in spec["containers"])


def _runs_for(pod: Mapping[str, Any], now: str, seconds: float) -> bool:
    """Whether each of a pod's containers that runs has run for so long, and one does."""
    states = [one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or ()]
    began = [at for state in states if (at := (state.get("running") or {}).get("startedAt"))]
    return bool(began) and (datetime.fromisoformat(now) - datetime.fromisoformat(max(began))).total_seconds() >= seconds
