"""Who can put the trainer into containers on a node: its container runtime by NRI, or volumes alone.

- containerd has NRI in 1.7, switched off (https://github.com/containerd/containerd/blob/release/1.7/docs/NRI.md), and
  on by default since 2.0 (https://github.com/containerd/containerd/pull/9744).
- CRI-O has it since 1.26 (https://github.com/cri-o/cri-o/pull/5318), and on by default since 1.30
  (https://github.com/cri-o/cri-o/pull/7790).
- Talos switched containerd's off before its 1.14
  (https://docs.siderolabs.com/talos/v1.15/configure-your-talos-cluster/images-container-runtime/containerd).
- Docker Engine (cri-dockerd) has none.

No API tells what a site has written into a runtime's configuration. An agent does: what its injector was shown, the
runtime showed by NRI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from joulepath_cli.commands.preflight.facts import Facts, Node, Unread
from joulepath_cli.commands.preflight.finding import Finding, Verdict, counted, names, number

__all__ = ["Injection", "installed", "possible", "ways"]


class Injection(StrEnum):
    """The chart's `injection`."""

    NRI = "nri"
    VOLUMES = "volumes"


@dataclass(frozen=True, slots=True)
class _Way:
    """What a node's runtime can do."""

    nri: bool | None
    """None where it isn't known."""
    told: str
    remedy: str = ""


_CONTAINERD_ON: Final = (
    'set `disable = false` under [plugins."io.containerd.nri.v1.nri"] in /etc/containerd/config.toml'
)
_RUNTIMES: Final[Mapping[str, tuple[tuple[int, int], tuple[int, int], str]]] = {
    "containerd": ((2, 0), (1, 7), f"{_CONTAINERD_ON} and restart it, or take nodes with containerd 2"),
    "cri-o": ((1, 30), (1, 26), "set `enable_nri = true` under [crio.nri] in /etc/crio/crio.conf and restart it"),
}
"""Since when NRI is on by default, since when it is there, and how it is switched on."""
_BY_DEFAULT: Final = _Way(True, "NRI is on by default; whether a site has switched it off shows once an agent is there")
_SHOWN: Final = _Way(True, "NRI is on: the agent there was shown containers by it")
_TALOS: Final = "Talos ("


def installed(facts: Facts) -> Injection | None:
    """What the release that is there does; None if none is seen."""
    if not facts.agents:
        return None
    return Injection.NRI if any("injector" in one.containers for one in facts.agents) else Injection.VOLUMES


def possible(facts: Facts, nodes: Iterable[Node]) -> Injection | None:
    """What all of these nodes can have as they are, the better one first; None if neither."""
    linux = [one for one in nodes if one.os == "linux"]
    if not linux:
        return None
    return Injection.NRI if all(_way(facts, one).nri for one in linux) else Injection.VOLUMES


def ways(facts: Facts, nodes: Iterable[Node], fixed: Injection | None) -> list[Finding]:
    """Which of the two ways these nodes can have, then runtime by runtime why.

    Args:
        facts: What was read.
        nodes: Those that have GPUs.
        fixed: The way that was asked for or is installed; None while that is open.
    """
    linux = [one for one in nodes if one.os == "linux"]
    if not linux:
        return []
    able = [one for one in linux if _way(facts, one).nri]
    found = [_conclusion(len(able), len(linux), fixed)]

    def kind(node: Node) -> tuple[str, str, str]:
        way = _way(facts, node)
        return node.runtime, way.told, way.remedy

    for (runtime, told, remedy), some in groupby(sorted(linux, key=kind), kind):
        group = list(some)
        able_here = _way(facts, group[0]).nri
        name = runtime.replace("://", " ") or "A runtime without a name"
        seen = f"{name} on {names(one.name for one in group)}: {told}."
        if able_here or fixed is Injection.VOLUMES:
            found.append(Finding("runtime", Verdict.OK, seen, needed=False))
        else:
            verdict = Verdict.UNKNOWN if able_here is None else Verdict.LACKS
            found.append(Finding("runtime", verdict, seen, remedy, needed=False))
    return found


def _conclusion(able: int, count: int, fixed: Injection | None) -> Finding:
    seen = f"This cluster can have injection: nri on {able} of {counted(count, 'GPU node')} as it is, volumes on all."
    if fixed is Injection.NRI and able < count:
        remedy = "Switch NRI on (below), or --set injection=volumes."
        return Finding("injection", Verdict.LACKS, seen, remedy, needed=not able)
    if fixed is Injection.VOLUMES and able == count:
        return Finding("injection", Verdict.OK, seen, "--set injection=nri asks nothing of trainings' namespaces.")
    return Finding("injection", Verdict.OK, seen)


def _way(facts: Facts, node: Node) -> _Way:
    if not isinstance(facts.reports, Unread) and any(one.node == node.name and one.injections for one in facts.reports):
        return _SHOWN
    name, _, version = node.runtime.partition("://")
    known = number(version)
    if name not in _RUNTIMES:
        if name == "docker":
            return _Way(False, "Docker Engine has no NRI", "Use --set injection=volumes, or containerd 2.")
        return _Way(
            None, "whether it has NRI isn't known", "Use --set injection=volumes, or containerd 2 or CRI-O 1.30."
        )
    if known is None:
        return _Way(None, "its version can't be read", "See kubectl get node -o wide.")
    by_default, there, how = _RUNTIMES[name]
    if known < there:
        oldest = ".".join(map(str, there))
        return _Way(
            False, f"it has no NRI, which is there since {oldest}", "Use --set injection=volumes, or a newer one."
        )
    if known < by_default:
        return _Way(
            False, "NRI is off unless its configuration says otherwise", f"For nri, {how}; or injection=volumes."
        )
    if node.image.startswith(_TALOS) and (number(node.image) or (0, 0)) < (1, 14):
        remedy = f"For nri, {_CONTAINERD_ON} by Talos's /etc/cri/conf.d/20-customization.part; or injection=volumes."
        return _Way(False, "Talos before 1.14 switches NRI off", remedy)
    return _BY_DEFAULT
