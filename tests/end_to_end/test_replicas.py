"""A job without a pipeline, two replicas by DDP: it may not be slowed at first, then it may."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from joulepath_crds import EnergyPlanStatus, Phase
from real_cluster import NotYetError, until
from tests.end_to_end import jobs
from tests.end_to_end.product import EVEN, JOBS, Product
from tests.end_to_end.replay import replayed
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAME = "replicas"
START_S = 240
STEP_S = 240


@pytest.fixture(scope="module")
def replicas(release: Product, record: Recorder) -> Iterator[str]:
    """The job and its EnergyPlan, which allows no slowdown; its name."""
    jobs.apply(
        release.cluster,
        jobs.script(),
        jobs.energy_plan(NAME, granularity="auto"),
        jobs.training_job(NAME, first_kernel=EVEN, ranks_per_pod=1, workload="replicas.py"),
    )
    yield NAME
    release.cluster.kubectl("delete", "pytorchjob,energyplan", NAME, "--namespace", JOBS)


def test_at_no_slowdown_it_is_idle_with_the_frontier_and_at_default_clocks(
    release: Product, record: Recorder, replicas: str
) -> None:
    ask = jobs.asking_anew(release.cluster, record, replicas)

    def look() -> None:
        ask()
        if (status := record.status(replicas)).phase is not Phase.IDLE:
            raise NotYetError(f"it is {status.phase}: {status.message}")

    until("Idle", START_S + STEP_S, look, 0.5)
    status = record.status(replicas)
    assert status.topology is not None
    assert (status.topology.schedule, status.topology.stages, status.topology.data_parallel) == ("NoPipeline", 1, 2)
    assert "spec.maxSlowdownPercent" in status.message
    assert len(status.frontier) > 10
    assert status.progress is not None
    assert status.progress.endswith(" at +5%")
    gpus = {rank.gpu_uuid for rank in record.ranks(replicas).values()}
    until("no JobPlan", 30, lambda: record.plan(replicas) is None)
    until("no lock", 30, lambda: not any(release.gpus(node).locked() & gpus for node in ("node0", "node1")))
    shown = release.cluster.kubectl("get", "eplan", replicas, "--namespace", JOBS)
    assert "Idle" in shown
    assert status.progress in shown


def test_at_a_slowdown_that_is_allowed_then_it_saves_within_it(
    release: Product, record: Recorder, replicas: str
) -> None:
    patch = json.dumps({"spec": {"maxSlowdownPercent": 5}})
    release.cluster.kubectl("patch", "energyplan", replicas, "--namespace", JOBS, "--type=merge", "--patch", patch)
    ask = jobs.asking_anew(release.cluster, record, replicas)

    def known(status: EnergyPlanStatus) -> bool:
        return status.phase is Phase.ACTIVE and status.measured is not None and status.measured.pairs >= 8

    def look() -> None:
        ask()
        if not known(status := record.status(replicas)):
            raise NotYetError(f"it is {status.phase}: {status.message}")

    until("eight pairs", 2 * STEP_S, look, 0.5)
    status = record.status(replicas)
    assert status.measured is not None
    told = replayed(record, replicas)
    assert told.savings > 0.05, told
    assert 0.02 < told.slowdown < 0.055, told
    # A busy host must not be sure of anything else.
    assert status.measured.savings.ci95_high > 0.05, status.measured.savings
    assert status.measured.savings.mean > 0.03, status.measured.savings
    assert 2 * status.measured.slowdown.ci95_low - status.measured.slowdown.mean < 0.06, status.measured.slowdown
