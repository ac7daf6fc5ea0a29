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

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
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


_ON: Final = 'set `disable = false` under [plugins."io.containerd.nri.v1.nri"]'
_RUNTIMES: Final[Mapping[str, tuple[tuple[int, int], tuple[int, int], str]]] = {
    "containerd": ((2, 0), (1, 7), f"{_ON} in /etc/containerd/config.toml and restart it, or take containerd 2"),
    "cri-o": ((1, 30), (1, 26), "set `enable_nri = true` under [crio.nri] in /etc/crio/crio.conf and restart it"),
}
"""Since when NRI is on by default, since when it is there, and how it is switched on."""
_BY_DEFAULT: Final = _Way(
    True, "NRI is on by default; that nobody has switched it off, NodeReports show once it injects"
)
_SHOWN: Final = _Way(True, "NRI is on: its agent was shown containers by it")
_TALOS: Final = "Talos ("


def installed(facts: Facts) -> Injection | None:
    """What the release that is there does; None if none is seen."""
    if not facts.agents:
        return None
    return Injection.NRI if any("injector" in one.containers for one in facts.agents) else Injection.VOLUMES


def possible(facts: Facts, nodes: Iterable[Node]) -> Injection | None:
    """What all of these nodes can have as they are, the better one first; None if neither."""
    found = _ways(facts, nodes)
    if not found:
        return None
    return Injection.NRI if all(way.nri for _, way in found) else Injection.VOLUMES


def ways(facts: Facts, nodes: Iterable[Node], fixed: Injection | None) -> list[Finding]:
    """Which of the two ways these nodes can have, then runtime by runtime why.

    Args:
        facts: What was read.
        nodes: Those that have GPUs.
        fixed: The way that was asked for or is installed; None while that is open.
    """
    found = _ways(facts, nodes)
    groups: dict[tuple[str, _Way], list[Node]] = defaultdict(list)
    for node, way in found:
        groups[node.runtime.partition("://")[0], way].append(node)
    runtimes = [_runtime(name, way, group, fixed) for (name, way), group in groups.items()]
    return [_conclusion([way.nri for _, way in found], fixed), *runtimes] if found else []


def _conclusion(has_nri: Sequence[bool | None], fixed: Injection | None) -> Finding:
    able, count = sum(one is True for one in has_nri), len(has_nri)
    seen = f"This cluster can have injection: nri on {able} of {counted(count, 'GPU node')} as it is, volumes on all."
    if fixed is Injection.NRI and able < count:
        verdict = Verdict.LACKS if False in has_nri else Verdict.UNKNOWN
        return Finding(
            "injection", verdict, seen, "Switch NRI on (below), or --set injection=volumes.", needed=not able
        )
    if fixed is Injection.VOLUMES and able == count:
        return Finding("injection", Verdict.OK, seen, "--set injection=nri asks nothing of trainings' namespaces.")
    return Finding("injection", Verdict.OK, seen)


def _runtime(name: str, way: _Way, nodes: Collection[Node], fixed: Injection | None) -> Finding:
    versions = names({one.runtime.partition("://")[2] for one in nodes})
    seen = f"{f'{name} {versions}'.strip() or 'None told'} on {names(one.name for one in nodes)}: {way.told}."
    if way.nri or fixed is Injection.VOLUMES:
        return Finding("runtime", Verdict.OK, seen, needed=False)
    return Finding("runtime", Verdict.UNKNOWN if way.nri is None else Verdict.LACKS, seen, way.remedy, needed=False)


def _ways(facts: Facts, nodes: Iterable[Node]) -> list[tuple[Node, _Way]]:
    """What the runtime of each node with Linux can do, by the names of nodes."""
    reports = () if isinstance(facts.reports, Unread) else facts.reports
    shown = {one.node for one in reports if one.injections}
    linux = sorted((one for one in nodes if one.os == "linux"), key=lambda one: one.name)
    return [(one, _SHOWN if one.name in shown else _way(one)) for one in linux]


def _way(node: Node) -> _Way:
    name, _, version = node.runtime.partition("://")
    if name == "docker":
        return _Way(False, "Docker Engine has no NRI", "--set injection=volumes, or take containerd 2.")
    if name not in _RUNTIMES:
        return _Way(
            None, "whether it has NRI isn't known", "--set injection=volumes, or take containerd 2 or CRI-O 1.30."
        )
    if (known := number(version)) is None:
        return _Way(None, "its version can't be read", "See kubectl get node -o wide.")
    by_default, there, how = _RUNTIMES[name]
    if known < there:
        since = ".".join(map(str, there))
        return _Way(
            False, f"it has no NRI, which is there since {since}", "--set injection=volumes, or take a newer one."
        )
    if known < by_default:
        return _Way(
            False, "NRI is off unless its configuration says otherwise", f"For nri, {how}; or injection=volumes."
        )
    if node.image.startswith(_TALOS) and (number(node.image) or (0, 0)) < (1, 14):
        remedy = f"For nri, {_ON} in Talos's /etc/cri/conf.d/20-customization.part; or injection=volumes."
        return _Way(False, "Talos before 1.14 switches NRI off", remedy)
    return _BY_DEFAULT
