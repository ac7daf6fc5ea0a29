"""The pytest fixture for tests that need the cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster, cluster_up
from .gpus import gpu_daemons

__all__ = ["cluster"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The real cluster, two nodes with four virtual GPUs each; it stays when the session ends (`make down`)."""
    with cluster_up(2, gpu_daemons(4)) as running:
        yield running
