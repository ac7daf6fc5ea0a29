"""What the agent serves over HTTP."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from joulepath_agent.metrics import TABLE
from joulepath_crds import JobPlanSpec, Purpose, Sweep
from tests.agent.room import LocalAgent, Room, wait_until
from tests.agent.test_agent import held


def get(agent: LocalAgent, path: str) -> str:
    """The body of an answer; raises HTTPError unless it is 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_metrics_serves_the_table_and_nothing_else(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    assert made.peer(iterations=100_000).hear()["accepted"]
    assert not made.peer(pod="stranger", ordinal=1).hear()["accepted"]
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="job-uid",
        purpose=Purpose.SWEEP,
        hash="one",
        activate_at=3,
        sweep=Sweep(clocks_mhz=(900, 0) * 100, iterations_per_block=2),
        default_clock_mhz=1410,
    )
    agent.plans(spec.to_api())
    wait_until(lambda: agent.report().gpus[0].lag is not None, "the lags are measured")
    agent.plans()
    wait_until(lambda: bool(agent.counts()["leaseEnds"]), "the lease has ended")

    families = {family.name: family for family in text_string_to_metric_families(get(agent, "/metrics"))}
    assert set(families) == {row.name.removesuffix("_total") for row in TABLE}
    for row in TABLE:
        family = families[row.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.type, row.help)
        assert family.samples, f"{row.name} has no sample"
        for sample in family.samples:
            assert sample.name == row.name
            assert set(sample.labels) == set(row.labels)

    power = {s.labels["gpu"]: s for s in families["joulepath_gpu_power_watts"].samples}
    assert power["1"].labels["UUID"] == made.gpus.uuids[1]
    assert {s.labels["hostname"] for s in power.values()} == {"node-a"}  # as dcgm-exporter spells it since 4.6.0-4.8.3
    assert (power["0"].labels["pod"], power["1"].labels["pod"]) == ("pod-a", "")
    assert power["0"].value > power["1"].value > 0
    lags = families["joulepath_switching_lag_seconds"].samples
    assert {(s.labels["direction"], s.labels["quantile"]) for s in lags} == {
        (direction, quantile) for direction in ("up", "down") for quantile in ("0.5", "0.95")
    }
    assert families["joulepath_rank_iteration_number"].samples[0].value >= 3


def test_an_agent_that_serves_ranks_is_healthy_and_ready(room: Callable[..., Room]) -> None:
    agent = room().agent()
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.health_port}{path}", timeout=60) as answer:
            assert answer.read() == b"ok\n"


def test_an_agent_whose_clocks_are_gone_tells_so_and_of_no_rank(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent, peer = made.agent(), made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: agent.report().gpus[0].locked, "its clock is locked")
    agent.clocks.end()
    wait_until(lambda: agent.rank() is None, "it is reported no more")
    assert not agent.report().gpus[0].locked, "the warden has reset it"
    wait_until(lambda: 'joulepath_clocks_up{hostname="node-a"} 0.0' in get(agent, "/metrics"), "it tells so")
