"""Cgroups that container runtimes remove at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from real_cluster import cgroups
from real_cluster.layout import NodeLayout


@pytest.mark.parametrize("version", [1, 2])
def test_cgroups_that_vanish_meanwhile_are_removed_all_the_same(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "cgroup_v2", lambda: version == 2)
    node = NodeLayout(0)
    hierarchies = (tmp_path,) if version == 2 else (tmp_path / "cpu", tmp_path / "memory")
    groups = [hierarchy / node.cgroup.lstrip("/") for hierarchy in hierarchies]
    for group in groups:
        for pod in range(100):
            (group / f"pod{pod}" / "container").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: cgroups.remove(node), range(4)))
    assert not any(group.exists() for group in groups)
