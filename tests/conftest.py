"""What all tests share: the virtual GPUs and, for tests marked ``cluster``, the real cluster.

Those that only ask its API server may run beside those that have pods on its nodes, one after the other each
(`--dist loadscope`): the ones compute, while the others wait for GPUs that are virtual.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

pytest_plugins = ["virtual_gpus.fixtures", "real_cluster.fixtures"]

settings.register_profile("any machine", deadline=None)  # how long an example takes is the host's affair
settings.register_profile("inner loop", deadline=None, max_examples=25)  # make test-fast
settings.load_profile("any machine")

_API_SERVER_ALONE: Final = (
    "tests/agent/cluster/",
    "tests/chart/test_admission.py",
    "tests/chart/test_chart.py",
    "tests/chart/test_rights.py",
    "tests/cli/",
    "tests/crds/",
)


class ByNeed(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Two workers at most: one for each of the two."""

    def _split_scope(self, nodeid: str) -> str:
        return "API server" if nodeid.startswith(_API_SERVER_ALONE) else "nodes"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """With `--dist loadscope`."""
    return ByNeed(config, log) if config.getoption("dist") == "loadscope" else None
