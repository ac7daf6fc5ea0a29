"""What nodes with GPUs are: whether agents are sent there, their platform, and their kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from joulepath_cli.commands.preflight.facts import Facts, Node
from joulepath_cli.commands.preflight.finding import Finding, Verdict, names, number
from joulepath_cli.commands.preflight.gpus import PRESENT
from joulepath_cli.commands.preflight.runtimes import Injection

__all__ = ["kernel", "label", "platform"]

_TELLS_A_PEER: Final = (6, 5)
"""Linux with SO_PEERPIDFD; see `docs/security.md`, "What runs where"."""
_HAS_PIDFD_OPEN: Final = (5, 3)


def label(facts: Facts, nodes: Sequence[Node]) -> Finding:
    """Whether the chart's agents go to these nodes."""
    sent = {one.node for one in facts.agents}
    without = [one.name for one in nodes if one.labels.get(PRESENT) != "true" and one.name not in sent]
    if not without:
        return Finding("node label", Verdict.OK, f"Agents go to all of them ({PRESENT}=true).")
    return Finding(
        "node label",
        Verdict.LACKS,
        f"No {PRESENT}=true on {names(without)}: by default no agent goes there.",
        "Label them, or choose nodes by agent.nodeSelector.",
        f"kubectl label node NAME {PRESENT}=true",
        needed=len(without) == len(nodes),
    )


def platform(nodes: Sequence[Node]) -> Finding:
    """Whether our images run there."""
    foreign = [one.name for one in nodes if one.os != "linux"]
    other = [one.name for one in nodes if one.os == "linux" and one.architecture != "amd64"]
    kinds = sorted({f"{one.os}/{one.architecture}" for one in nodes})
    if foreign:
        return Finding(
            "platform",
            Verdict.LACKS,
            f"{', '.join(kinds)}: Joulepath is for Linux, and {names(foreign)} isn't.",
            "Trainings there go on without it.",
            needed=len(foreign) == len(nodes),
        )
    if other:
        return Finding(
            "platform",
            Verdict.UNKNOWN,
            f"{', '.join(kinds)}: on {names(other)} our images run if they were built for it, which nobody has tried.",
            "Build the Dockerfile's three images for that platform too (docker buildx build --platform).",
        )
    return Finding("platform", Verdict.OK, f"{kinds[0]}.")


def kernel(facts: Facts, nodes: Sequence[Node], fixed: Injection | None, likely: Injection | None) -> Finding:
    """Whether the kernel tells who is at the agent's socket, where it has to.

    Args:
        facts: What was read.
        nodes: Those that have GPUs.
        fixed: The injection that was asked for or is installed.
        likely: That, or what the nodes can have.
    """
    versions = {one.name: number(one.kernel) for one in nodes if one.os == "linux"}
    seen = ", ".join(sorted({one.kernel for one in nodes if one.os == "linux"})[:3]) or "no Linux"
    if likely is Injection.NRI:
        return Finding("kernel", Verdict.OK, f"{seen}: pods have sockets of their own with nri, on any kernel.")
    if unread := [name for name, version in versions.items() if version is None]:
        return Finding(
            "kernel", Verdict.UNKNOWN, f"{seen}: no version of {names(unread)}.", "See kubectl get node -o wide."
        )
    old = {name for name, version in versions.items() if version is not None and version < _TELLS_A_PEER}
    oldest = {name for name, version in versions.items() if version is not None and version < _HAS_PIDFD_OPEN}
    see_pids = {one.node for one in facts.agents if one.host_pid}
    if not old - see_pids and not oldest:
        return Finding("kernel", Verdict.OK, f"{seen}.")
    if oldest:
        return Finding(
            "kernel",
            Verdict.LACKS,
            f"{seen}: before 5.3 on {names(oldest)}, where by volumes no pod can be told.",
            "Use injection: nri there, or newer nodes.",
            needed=len(oldest) == len(versions),
        )
    return Finding(
        "kernel",
        Verdict.LACKS,
        f"{seen}: before 6.5 on {names(old - see_pids)}, where by volumes the agent must see the host's processes.",
        "--set agent.hostPID=true, or injection: nri, which doesn't need it.",
        needed=fixed is Injection.VOLUMES and len(old - see_pids) == len(versions),
    )
