"""Stops injection where it keeps pods from being made or started, and lets it go on once one has passed. Pure.

Pods are kept from starting by our init container, and from being made by whoever refuses what we add: a policy against
hostPath. What a pod is refused for isn't told, so whatever may be ours stops injection, and nothing is added then.

A stop lasts for a while, in which the pods that come have no trainer; then one may try. If that one fails as well, or
one is still held up, the next while is twice as long. It is over when a pod has passed that was let try, or that had
failed before: pods of the same gang on sound nodes prove nothing of the node that isn't. So it is when the node has an
agent at last, and no pod is held up elsewhere, or when for days no pod of ours was seen at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from joulepath_operator.facts.admission import LONGEST_PAUSE_S, Denial, Stop
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.init_container import COPIED, READER

__all__ = ["failure", "next_stop"]

_PAUSE_S: Final = 600
_REMEMBERED_S: Final = 30 * 86400
"""How long it is known why pods of a stop that is over have no trainer."""
_FORGOTTEN_S: Final = 3 * 86400
"""After how long a stop ends that no pod has to do with: its namespace may be gone."""
_STARTING: Final = frozenset({"PodInitializing", "ContainerCreating"})
_PULLING: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIG_ERROR: Final = "CreateContainerConfigError"
"""What `envFrom` names isn't there, or an image would run as root that mustn't."""
_LOST: Final = frozenset({"Unknown", "ContainerStatusUnknown"})
"""The node was rebooted, or its runtime has forgotten: nobody knows how it ended."""
_NOT_OURS: Final = (
    "exceeded quota",
    "failed quota",
    "already exists",
    "not found",
    "cannot create resource",
    "being terminated",
    "failed calling webhook",
)
"""For what a pod is refused with and without us: quota, names, accounts, rights, its namespace's end, a webhook that is
down."""
_POD_SECURITY: Final = "violates PodSecurity"
_HOST_PATH: Final = "hostPath"
"""What Pod Security says of our volumes at each level that forbids them."""
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True)
class _Seen:
    """What counts of a pod that has our init container, or was refused; small, as there may be many."""

    created_at: str
    node: str
    failure: str
    ended_at: str | None
    """When our init container ended for good; None where it waits, and so fails now."""
    passed: bool
    restarted: bool
    denied: bool = False


def next_stop(
    old: Stop | None,
    pods: Iterable[Mapping[str, Any]],
    now: str,
    has_agent: Callable[[str], bool],
    denials: Iterable[Denial] = (),
) -> Stop | None:
    """The stop that holds from now on in a namespace, one that is over, or None where nothing is known.

    Args:
        old: What was before.
        pods: Those of the namespace that don't run; all that there are, where the old one holds.
        now: The time, in RFC 3339.
        has_agent: Whether the agent of a node is ready.
        denials: Of pods that the namespace's jobs have asked for.
    """
    all_count = old is not None and old.holds and old.denied
    seen = [_seen(pod) for pod in pods if _status(pod) or (all_count and _is_injected(pod))]
    seen += [_refused(one) for one in denials if _may_be_for_ours(one.why)]
    # A node's clock may be ahead.
    failed = {min(one.ended_at or now, now): one for one in seen if one.failure}
    # What failed long ago, or before a pod passed, tells nothing of now.
    known = max(_later(now, -_PAUSE_S), (old.over_at or old.since) if old else "")
    if old is None or not old.holds:
        if recent := [at for at in failed if at > known]:
            return _stopped(Stop(now, now, _PAUSE_S, ""), failed[max(recent)], now, has_agent)
        return old if old and old.over_at > _later(now, -_REMEMBERED_S) else None
    if not old.denied and (refused := [at for at, one in failed.items() if one.denied and at > known]):
        return _stopped(old, failed[max(refused)], now, has_agent)  # what holds isn't for pods without init container
    if tried := [at for at in failed if at >= old.until]:
        longer = replace(old, pause_s=min(2 * old.pause_s, LONGEST_PAUSE_S))
        return _stopped(longer, failed[max(tried)], now, has_agent)
    mended = any(_ends(one, old) for one in seen) or (old.node and has_agent(old.node))
    if mended and now not in failed:
        return replace(old, over_at=now)
    if not seen and now >= _later(old.first_try, _FORGOTTEN_S):
        return None
    if now >= _later(old.until, old.pause_s):  # whoever was let try was never made, or still waits for its image
        return replace(old, until=now, tried_from=old.first_try)
    return old


def failure(pod: Mapping[str, Any]) -> str:
    """How our init container keeps a pod from starting, as a clause; empty where it doesn't."""
    state = _state(pod)
    if (waiting := state.get("waiting")) is not None:
        reason = str(waiting.get("reason"))
        if reason in _STARTING or (reason in _PULLING and _has_alike(pod, "image")):
            return ""
        if reason == _CONFIG_ERROR and _has_alike(pod, *COPIED):
            return ""
        return _clause(pod, reason, waiting.get("message"))
    ended = state.get("terminated") or {}
    # One that is deleted or evicted while it starts has failed at nothing.
    ends = pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("reason")
    if not ended.get("exitCode") or ended.get("reason") in _LOST or ends:
        return ""
    return _clause(pod, f"{ended.get('reason')}, exit code {ended['exitCode']}", ended.get("message"))


def _stopped(stop: Stop, pod: _Seen, now: str, has_agent: Callable[[str], bool]) -> Stop:
    """From now on for as long as it pauses, because of this pod."""
    without_agent = pod.node if pod.node and not has_agent(pod.node) else ""
    until = _later(now, stop.pause_s)
    return replace(stop, until=until, why=pod.failure, node=without_agent, tried_from="", denied=pod.denied)


def _ends(pod: _Seen, stop: Stop) -> bool:
    """Whether it has passed since then, and was let try or had failed itself."""
    if stop.denied:  # that it is there is enough
        return not pod.denied and pod.created_at >= stop.first_try
    since = pod.passed and (pod.ended_at or "") >= stop.since
    return since and (pod.created_at >= stop.first_try or pod.restarted)


def _seen(pod: Mapping[str, Any]) -> _Seen:
    ended = _state(pod).get("terminated") or {}
    return _Seen(
        created_at=pod["metadata"]["creationTimestamp"],
        node=pod["spec"].get("nodeName", ""),
        failure=failure(pod),
        ended_at=ended.get("finishedAt"),
        passed=ended.get("exitCode") == 0,
        restarted=bool(_status(pod).get("restartCount")),
    )


def _may_be_for_ours(why: str) -> bool:
    """Whether a pod may have been refused for what we add."""
    own = _POD_SECURITY in why and _HOST_PATH not in why
    return not own and not any(what in why for what in _NOT_OURS)


def _refused(denial: Denial) -> _Seen:
    why = f"a pod of {denial.job} was refused: {denial.why}"[:_LONGEST]
    return _Seen(denial.at, "", why, denial.at, passed=False, restarted=False, denied=True)


def _clause(pod: Mapping[str, Any], reason: str, message: str | None) -> str:
    node = pod["spec"].get("nodeName")
    where = f"pod {pod['metadata']['name']}{f' on node {node}' if node else ''}"
    return f"{where}: {reason}{f': {message}' if message else ''}"[:_LONGEST]


def _has_alike(pod: Mapping[str, Any], *fields: str) -> bool:
    """Whether a container of the pod has these as ours has them, and so would be held up without us, too."""
    ours: Mapping[str, Any] = next(
        (one for one in pod["spec"].get("initContainers") or () if one["name"] == READER), {}
    )
    return any(all(_field(one, name) == _field(ours, name) for name in fields) for one in pod["spec"]["containers"])


def _field(container: Mapping[str, Any], name: str) -> Any:
    return container.get(name) or (container.get("securityContext") or {}).get(name)


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    state: Mapping[str, Any] = _status(pod).get("state") or {}
    return state


def _status(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the kubelet says of our init container; nothing where there is none."""
    if not _is_injected(pod):
        return {}
    told = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return next((one for one in told if one["name"] == READER), {})


def _is_injected(pod: Mapping[str, Any]) -> bool:
    return INJECTED_ANNOTATION in (pod["metadata"].get("annotations") or {})


def _later(time: str, seconds: float) -> str:
    return (datetime.fromisoformat(time) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
