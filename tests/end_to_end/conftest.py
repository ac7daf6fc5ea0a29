"""The release that all tests here share, and the record of what the cluster tells meanwhile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from demo import manifests
from real_cluster import Cluster, CommandError, only_release
from tests.end_to_end import jobs, product, watching


@pytest.fixture(scope="package")
def release(request: pytest.FixtureRequest) -> Iterator[product.Product]:
    """Joulepath, installed; what the tests leave is removed at the end, even if they uninstalled it themselves."""
    with only_release():  # before the cluster's daemons are looked after: another release may run on others
        yield from _installed(request.getfixturevalue("cluster"))


def _installed(cluster: Cluster) -> Iterator[product.Product]:
    product.refuse_another_release(cluster)
    product.clear(cluster)
    product.prepare(cluster)
    jobs.apply(cluster, manifests.job_namespace(product.JOBS, "nri"))
    jobs.apply(cluster, *jobs.python_volumes())
    untouched = jobs.pods_as_made(cluster)
    try:
        product.install(cluster)
        yield product.Product(cluster, untouched)
    finally:
        _tell(cluster)
        product.clear(cluster)


def _tell(cluster: Cluster) -> None:
    """The logs; pytest shows them where a test has failed."""
    chosen = [(product.SYSTEM, f"app.kubernetes.io/component={part}") for part in ("operator", "agent")]
    for namespace, selector in (*chosen, (product.JOBS, "training.kubeflow.org/job-name in (uneven, even, again)")):
        with contextlib.suppress(CommandError):
            where = ("--namespace", namespace, "--selector", selector)
            print(cluster.kubectl("logs", *where, "--tail=100", "--prefix", "--all-containers"), file=sys.stderr)


@pytest.fixture(scope="package")
def record(release: product.Product) -> Iterator[watching.Recorder]:
    """All that is told from the installation on."""
    with watching.recorder(release.cluster.kubeconfig) as made:
        yield made


@pytest.fixture(scope="package")
def uneven(release: product.Product, record: watching.Recorder) -> str:
    """A long job with uneven stages and forked DataLoader workers, and its EnergyPlan; its name."""
    jobs.apply(release.cluster, jobs.script(), jobs.energy_plan("uneven"))
    jobs.apply(release.cluster, jobs.training_job("uneven", first_kernel=product.UNEVEN, workers=1))
    return "uneven"


@pytest.fixture(scope="package")
def even(release: product.Product, record: watching.Recorder, uneven: str) -> str:
    """The other job: two stages, so that warm-up and cool-down are short, where even stages wait too; its name."""
    jobs.apply(
        release.cluster,
        jobs.energy_plan("even", mode="Observe"),
        jobs.training_job("even", first_kernel=product.EVEN, ranks_per_pod=1),
    )
    return "even"
