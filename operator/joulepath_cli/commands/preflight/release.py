"""Joulepath itself where it is installed, and what it has seen of the driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from joulepath_cli.commands.preflight.facts import Facts, Node, Pod, Unread
from joulepath_cli.commands.preflight.finding import Finding, Verdict, counted, names, unread

__all__ = ["itself", "permission"]

_KINDS: Final = frozenset(
    f"v1alpha1/{name}"
    for name in (
        *("energyplans", "energypolicies", "energyprofiles", "jobplans"),
        *("nodereports", "nodestates", "nodemeasurements"),
    )
)
_PERMISSION: Final = "permission"
"""In what an agent says of a GPU whose clock NVML doesn't let it set."""


def permission(facts: Facts, nodes: Sequence[Node]) -> Finding:
    """Whether the driver lets clocks be set, as agents have seen and the API server can't know."""
    check = "driver permission"
    if isinstance(facts.reports, Unread):
        return unread(check, facts.reports)
    refused = [one.node for one in facts.reports if any(_PERMISSION in why for why in one.refused)]
    if refused:
        return Finding(
            check,
            Verdict.LACKS,
            f"The driver lets no clock be set on {names(refused)}, say the agents there.",
            "Leave the clocks' container CAP_SYS_ADMIN; where it has it, the host forbids it: ask its provider.",
            needed=len(refused) == len(facts.reports),
        )
    told = {one.name for one in nodes}
    if set_on := [one.node for one in facts.reports if one.switched and one.node in told]:
        return Finding(check, Verdict.OK, f"Clocks were set on {names(set_on)}.")
    pods = () if isinstance(facts.pods, Unread) else facts.pods
    if doctors := [one for one in pods if one.component == "doctor" and one.phase in ("Succeeded", "Failed")]:
        seen = f"A doctor has come to its end on {names(one.node for one in doctors)}, and no agent told of clocks set."
        return Finding(
            check, Verdict.UNKNOWN, seen, "Read its log:", f"kubectl -n {facts.namespace} logs {doctors[0].name}"
        )
    return Finding(
        check,
        Verdict.UNKNOWN,
        "The API server can't tell whether the driver lets clocks be set. The doctor can.",
        "Install or upgrade with --set doctor.enabled=true, and read its log (docs/doctor.md).",
    )


def itself(facts: Facts, nodes: Sequence[Node]) -> list[Finding]:
    """Whether the release that is there is whole."""
    served = facts.kinds["joulepath.dev"]
    if isinstance(facts.pods, Unread):
        return [unread("Joulepath", facts.pods, needed=False)]
    if not facts.installed:
        seen = f"It isn't installed in namespace {facts.namespace}"
        elsewhere = ", but its kinds are there: is it in another one (--namespace)?" if served else " yet."
        remedy = 'Once nothing else is missing (README.md, "Install it"):'
        command = f"helm install joulepath charts/joulepath -n {facts.namespace} --create-namespace"
        return [Finding("Joulepath", Verdict.LACKS, f"{seen}{elsewhere}", remedy, command, needed=False)]
    found = [_agents(facts, nodes)]
    if isinstance(served, Unread):
        found.append(unread("Joulepath's kinds", served))
    elif missing := _KINDS - served:
        seen = f"Not served: {', '.join(sorted(missing))}."
        found.append(
            Finding("Joulepath's kinds", Verdict.LACKS, seen, "Apply them:", "kubectl apply --server-side -f crds/")
        )
    else:
        found.append(Finding("Joulepath's kinds", Verdict.OK, "joulepath.dev/v1alpha1."))
    for part in ("operator", "webhook"):
        if pods := [one for one in facts.pods if one.component == part]:
            found.append(_part(facts, part, pods))
    return found


def _agents(facts: Facts, nodes: Sequence[Node]) -> Finding:
    ready = {one.node for one in facts.agents if one.ready}
    without = [one.name for one in nodes if one.name not in ready]
    seen = f"Ready on {len(nodes) - len(without)} of {counted(len(nodes), 'GPU node')}"
    if not without:
        return Finding("agents", Verdict.OK, f"{seen}.", needed=False)
    needed = len(without) == len(nodes)
    return Finding(
        "agents", Verdict.LACKS, f"{seen}, not on {names(without)}.", "See why:", _describe(facts, "agent"), needed
    )


def _part(facts: Facts, part: str, pods: Sequence[Pod]) -> Finding:
    if any(one.ready for one in pods):
        return Finding(part, Verdict.OK, "Ready.")
    return Finding(part, Verdict.LACKS, "None of its pods is ready.", "See why:", _describe(facts, part))


def _describe(facts: Facts, part: str) -> str:
    return f"kubectl -n {facts.namespace} describe pods -l app.kubernetes.io/component={part}"
