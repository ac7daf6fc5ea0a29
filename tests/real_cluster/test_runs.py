"""Runs that share the cluster don't remove it under one another. No cluster is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from real_cluster import MachineError, cluster, cluster_up, down


def test_a_cluster_that_a_run_works_with_is_not_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    removed: list[str] = []
    monkeypatch.setenv("JOULEPATH_CACHE", str(tmp_path))
    monkeypatch.setattr(cluster, "up", lambda *_: None)
    monkeypatch.setattr(cluster, "_down", lambda: removed.append("all"))
    monkeypatch.setattr("real_cluster.machine.require_root", lambda: None)
    with cluster_up():
        with cluster_up(), pytest.raises(MachineError, match="uses the cluster"):
            down()
        with pytest.raises(MachineError, match="uses the cluster"):
            down()
    assert not removed
    down()
    assert removed == ["all"]
