"""What else Joulepath stands on: Kubernetes, Pod Security, kinds of jobs; and Prometheus, if there is one."""

from __future__ import annotations

from typing import Final

from joulepath_cli.commands.preflight.facts import Facts, Unread
from joulepath_cli.commands.preflight.finding import Finding, Verdict, names, number, unread
from joulepath_cli.commands.preflight.runtimes import Injection
from joulepath_crds import JOB_NAMES

__all__ = ["job_kinds", "kubernetes", "openshift", "prometheus", "release_namespace", "training_namespaces"]

_OLDEST: Final = (1, 30)
"""ValidatingAdmissionPolicy is `v1` since, and keeps each agent to its own node."""
_LEVEL: Final = "pod-security.kubernetes.io/enforce"
_FORBID_HOST_PATH: Final = frozenset({"baseline", "restricted"})
"""https://kubernetes.io/docs/concepts/security/pod-security-standards"""
_ASKS: Final = "joulepath.dev/injection"
"""A namespace's label: its value is the injection that it asks for."""


def kubernetes(facts: Facts) -> Finding:
    """Whether the API server is new enough."""
    if isinstance(facts.version, Unread):
        return unread("Kubernetes", facts.version)
    version = number(facts.version)
    if version is None:
        return Finding(
            "Kubernetes", Verdict.UNKNOWN, f"Its version is told as {facts.version}.", "See kubectl version."
        )
    if version < _OLDEST:
        return Finding("Kubernetes", Verdict.LACKS, f"{facts.version}.", "Joulepath needs 1.30 or newer: upgrade it.")
    return Finding("Kubernetes", Verdict.OK, f"{facts.version}.")


def release_namespace(facts: Facts) -> Finding:
    """Whether agents, which need hostPath and CAP_SYS_ADMIN, are let into Joulepath's namespace."""
    check, name = "Pod Security", facts.namespace
    if isinstance(facts.namespaces, Unread):
        return unread(check, facts.namespaces)
    remedy = "Unless your cluster's default is privileged (Talos's is baseline), which no API tells:"
    command = f"kubectl label namespace {name} {_LEVEL}=privileged"
    if name not in facts.namespaces:
        return Finding(check, Verdict.OK, f"There is no namespace {name} yet.", remedy, command)
    level = facts.namespaces[name].get(_LEVEL)
    if level in _FORBID_HOST_PATH:
        seen = f"Namespace {name} is at {level}, which refuses hostPath and CAP_SYS_ADMIN."
        return Finding(check, Verdict.LACKS, seen, "Let agents in:", command)
    if level is None and not facts.agents:
        return Finding(check, Verdict.OK, f"Namespace {name} names no level.", remedy, command)
    return Finding(check, Verdict.OK, f"Namespace {name} {f'is at {level}' if level else 'has agents'}.")


def training_namespaces(facts: Facts, likely: Injection | None) -> list[Finding]:
    """Which namespaces ask for the trainer, and whether its volumes are let into these; by NRI none has to ask."""
    if likely is not Injection.VOLUMES or isinstance(facts.namespaces, Unread):
        return []
    check, label = "namespaces of trainings", f"{_ASKS}={likely}"
    asking = {name: labels.get(_LEVEL) for name, labels in facts.namespaces.items() if labels.get(_ASKS) == likely}
    if not asking:
        command = f"kubectl label namespace NAMESPACE {label}"
        seen = f"By volumes nothing is injected: no namespace has the label {label}."
        return [Finding(check, Verdict.LACKS, seen, "Where trainings run:", command, needed=False)]
    if forbid := [name for name, level in asking.items() if level in _FORBID_HOST_PATH]:
        seen = f"By volumes nothing is injected in {names(forbid)}: their level refuses hostPath."
        return [Finding(check, Verdict.LACKS, seen, "Use injection: nri, at any level.", needed=False)]
    return [Finding(check, Verdict.OK, f"The webhook is asked about pods of {names(asking)}.", needed=False)]


def openshift(facts: Facts) -> list[Finding]:
    """What OpenShift asks for beside Pod Security: its own constraints, of which no API tells whom they let pass."""
    if isinstance(served := facts.kinds["security.openshift.io"], Unread) or not served:
        return []
    if any(one.ready for one in facts.agents):
        return [Finding("OpenShift", Verdict.OK, "Its security context constraints let agents pass.")]
    seen = "Its security context constraints must let agents pass, and don't tell whether they do."
    command = f"oc adm policy add-scc-to-user privileged -z joulepath-agent -n {facts.namespace}"
    return [Finding("OpenShift", Verdict.UNKNOWN, seen, "For a release named joulepath:", command)]


def job_kinds(facts: Facts) -> Finding:
    """Which kinds of job can be planned for; others of the same names aren't."""
    check = "job kinds"
    served, others = [], []
    for kind in JOB_NAMES:
        found = facts.kinds[kind.group]
        if isinstance(found, Unread):
            return unread(check, found)
        if f"{kind.version}/{kind.plural}" in found:
            served.append(f"{kind.kind} ({kind.api_version})")
        elif any(one.endswith(f"/{kind.plural}") for one in found):
            others.append(f" {kind.kind} is there, but not as {kind.api_version}.")
    seen = "".join(others)
    if served:
        return Finding(check, Verdict.OK, f"{', '.join(served)}.{seen}")
    return Finding(
        check,
        Verdict.LACKS,
        f"There is no kind of job that can be planned for.{seen}",
        f"Install what serves one of {', '.join(kind.api_version for kind in JOB_NAMES)}.",
    )


def prometheus(facts: Facts) -> Finding:
    """Whether metrics can be asked for by a PodMonitor; they are served in any case."""
    if isinstance(served := facts.kinds["monitoring.coreos.com"], Unread):
        return unread("Prometheus", served, needed=False)
    if "v1/podmonitors" in served:
        seen = "The Prometheus operator's PodMonitor."
        return Finding("Prometheus", Verdict.OK, seen, "--set metrics.podMonitor.enabled=true", needed=False)
    return Finding(
        "Prometheus",
        Verdict.LACKS,
        "There is no PodMonitor of the Prometheus operator.",
        "Scrape pods by prometheus.io/scrape, which ours have, or ports 9708 (operator) and 9709 (agents).",
        needed=False,
    )
