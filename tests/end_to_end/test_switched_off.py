"""The master switch: all clocks at default though the operator is dead, the training goes on, the plan comes back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from joulepath_cli.__main__ import main
from joulepath_crds import EnergyPlanStatus, Phase
from real_cluster import CommandError, NotYetError, until
from tests.end_to_end import product
from tests.end_to_end.product import Product
from tests.end_to_end.waiting import BACK_S, in_force, wait_iterations, wait_returned, while_locked
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven")]

NODES = ("node0", "node1")
WHY = "EnergyPolicy default pauses all plans: a test"


@contextlib.contextmanager
def without_operator(release: Product) -> Iterator[None]:
    """While no operator runs."""
    scale(release, 0)
    try:
        yield
    finally:
        scale(release, 1)
        product.wait_ready(release, "deployment/joulepath-operator")


def scale(release: Product, replicas: int) -> None:
    """Until there are so many operators."""
    release.kubectl("scale", "deployment/joulepath-operator", f"--replicas={replicas}")

    def there() -> bool:
        pods = release.kubectl("get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "name")
        return len(pods.split()) == replicas

    until(f"{replicas} operators", BACK_S, there)


@pytest.fixture
def administrator(release: Product, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whose kubeconfig is the current one; no policy is left."""
    location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(location, str(release.cluster.kubeconfig))
    yield
    with contextlib.suppress(CommandError):
        release.cluster.kubectl("delete", "energypolicies", "--all")


def plugin(release: Product, *arguments: str) -> str:
    """What the program says that `kubectl energy` finds."""
    program = Path(sys.executable).with_name("kubectl-energy")
    environment = {**os.environ, **release.cluster.environment}
    ran = subprocess.run([program, *arguments], env=environment, check=True, capture_output=True, text=True)
    return ran.stdout


def reasons(record: Recorder) -> set[str]:
    """Of all ranks of `uneven`."""
    return {rank.reason for rank in record.ranks("uneven").values()}


def tell_last_lock(release: Product, gpus: Mapping[str, set[str]], since_ns: int) -> None:
    """Prints how long after a moment any of these GPUs was locked by an order."""
    last_ns = max(release.gpus(node).last_locked_ns(ones) for node, ones in gpus.items())
    print(f"the last order that locked a clock was taken {(last_ns - since_ns) / 1e9:.3f} s after it was paused")


@pytest.mark.usefixtures("administrator")
def test_a_pause_returns_every_clock_without_an_operator_and_its_end_brings_the_plan_back_without_one(
    release: Product, record: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    in_force(release, record)
    plan_hash = record.applied("uneven")
    with without_operator(release):
        gpus = {node: while_locked(release, record, "uneven", node) for node in NODES}
        paused_ns = time.monotonic_ns()
        assert main(["pause", "--reason", "a test"]) == 0
        since_ns = time.monotonic_ns()
        said = capsys.readouterr().out
        assert said.startswith("All plans are paused, and so say all nodes, 2, after ")
        for node in NODES:
            wait_returned(release, node, gpus[node], paused_ns)
        tell_last_lock(release, gpus, paused_ns)
        print(said)
        wait_iterations(release, gpus, 12)
        assert all(ones <= release.gpus(node).at_default(since_ns) for node, ones in gpus.items())
        until("each rank's reason", BACK_S, lambda: reasons(record) == {f"Paused: {WHY}"})
        assert "no longer paused, and so say all nodes" in plugin(release, "resume")
        for node in NODES:
            while_locked(release, record, "uneven", node)
        assert record.applied("uneven") == plan_hash, "the same plan is in force again"


@pytest.mark.usefixtures("administrator")
def test_an_energy_plan_tells_that_it_is_paused_and_is_active_again_afterwards(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    before = record.applied("uneven")
    plugin(release, "pause", "--reason", "a test")

    def rests(status: EnergyPlanStatus) -> bool:
        told = {one.type: (one.reason, one.message) for one in status.conditions}
        reason, message = told.get("Active", ("", ""))
        return status.phase is Phase.PLANNED and reason == "Paused" and message.startswith(f"{WHY}. All GPUs run")

    record.wait("uneven", "pause", BACK_S, rests)
    plan = record.plan("uneven")
    assert plan is not None
    assert plan.hash == before, "it is kept"
    plugin(release, "resume")

    def again() -> None:
        status = record.status("uneven")
        if status.phase is not Phase.ACTIVE:
            raise NotYetError(f"EnergyPlan uneven is {status.phase}: {status.message}")

    in_force(release, record)
    until("the plan active again", BACK_S, again, 0.2)
