"""The chart, rendered once."""

from __future__ import annotations

import pytest

from real_cluster import Cluster
from tests.chart.rendering import Object, render


@pytest.fixture(scope="package")
def objects(cluster: Cluster) -> list[Object]:
    return render(cluster)
