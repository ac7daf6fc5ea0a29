"""What the control plane's processes have taken by now, and what the API server tells of requests."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from real_cluster.commands import CommandError
from simulated_nodes.place import Place

__all__ = ["Reading", "read"]

_TRIES: Final = 3
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LINE: Final = re.compile(r"(\w+)\{(.*)\} (\S+)$")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_OURS: Final = (
    *("energyplans", "energyprofiles", "jobplans", "nodereports", "nodestates", "nodemeasurements"),
    *("leases", "pytorchjobs"),
)
_KEPT: Final = {
    "apiserver_request_total": ("verb", "resource", "subresource", "code"),
    "apiserver_flowcontrol_rejected_requests_total": ("priority_level", "reason"),
    "apiserver_watch_events_sizes_sum": ("resource",),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """By the names of processes: CPU seconds of each, of its children that have ended, and MiB in memory at most.
    `requests` is empty where the API server doesn't tell."""

    at_s: float
    pids: Mapping[str, int]
    cpu_s: Mapping[str, float]
    children_cpu_s: Mapping[str, float]
    peak_mib: Mapping[str, float]
    requests: Mapping[str, Mapping[str, float]]

    def cores_since(self, before: Reading, name: str) -> float:
        """CPU seconds a second; of one that was started anew, those since."""
        old_s = before.cpu_s[name] if self.pids[name] == before.pids[name] else 0.0
        return (self.cpu_s[name] - old_s) / (self.at_s - before.at_s)

    def requests_since(self, before: Reading, metric: str) -> dict[str, float]:
        """By labels, what has been added; what hasn't changed is left out."""
        old = before.requests.get(metric, {})
        found = {key: value - old.get(key, 0.0) for key, value in self.requests.get(metric, {}).items()}
        return {key: value for key, value in sorted(found.items()) if value}


def read(place: Place, pids: Mapping[str, int]) -> Reading:
    """As it is now, of etcd, the API server and further processes."""
    everyone = {"etcd": place.etcd_pid, "API server": place.api_server_pid, **pids}
    times = {name: _ticks(pid) for name, pid in everyone.items()}
    at_s = time.monotonic()
    return Reading(
        at_s,
        everyone,
        {name: own / _TICKS for name, (own, _) in times.items()},
        {name: children / _TICKS for name, (_, children) in times.items()},
        {name: _peak_mib(pid) for name, pid in everyone.items()},
        _requests(_metrics(place)),
    )


def _metrics(place: Place) -> str:
    """Empty where an API server that is overloaded doesn't tell them."""
    for _ in range(_TRIES):
        with suppress(CommandError):
            return place.kubectl("get", "--raw", "/metrics")
    return ""


def _ticks(pid: int) -> tuple[int, int]:
    fields = _of(pid, "stat").rpartition(") ")[2].split() or ["0"] * 15
    user, system, children_user, children_system = map(int, fields[11:15])
    return user + system, children_user + children_system


def _peak_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s*(\d+)", _of(pid, "status"))
    return int(found[1]) / 1024 if found else 0.0


def _of(pid: int, file: str) -> str:
    """Empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return ""


def _requests(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if (match := _LINE.match(line)) and match[1] in _KEPT:
            labels = dict(_LABEL.findall(match[2]))
            if labels.get("resource", _OURS[0]) not in _OURS:
                continue
            key = " ".join(filter(None, (labels.get(one) for one in _KEPT[match[1]])))
            of_metric = found.setdefault(match[1], {})
            of_metric[key] = of_metric.get(key, 0.0) + float(match[3])
    return found
