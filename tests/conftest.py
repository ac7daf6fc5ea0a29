"""What all tests share: the virtual GPUs and, for tests marked ``cluster``, the real cluster.

Those among them that have pods on its nodes are marked ``nodes``, by where they are: they mostly wait for GPUs that are
virtual, and all others run beside them.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings

pytest_plugins = ["virtual_gpus.fixtures", "real_cluster.fixtures"]

# How long an example takes is the host's affair. What a gate draws is the same each time: it judges the change at hand.
settings.register_profile("any machine", deadline=None, derandomize=True)
settings.register_profile("inner loop", deadline=None, max_examples=25)  # make test-fast
settings.register_profile("new examples", deadline=None, max_examples=1000)  # make properties
settings.load_profile("any machine")

_BESIDE: Final = (
    # They only ask the API server.
    "tests/agent/cluster/",
    "tests/chart/",
    "tests/cli/",
    "tests/crds/",
    # They have a node or a control plane of their own, or images and pods that nobody else has to do with.
    "tests/injector/",
    "tests/operator/test_with_api.py",
    "tests/real_cluster/test_images.py",
    "tests/real_cluster/test_prometheus.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks those that have pods on the cluster's nodes, or change these."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.nodeid.startswith(_BESIDE):
            item.add_marker("nodes")
