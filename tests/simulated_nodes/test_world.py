"""Simulated nodes on a real control plane: a small job is seen, and follows its first plan on every node."""

from __future__ import annotations

import pytest

from real_cluster.commands import until
from simulated_nodes.world import Told, World

LIMIT_S = 200


def staged_and_applied(told: Told, nodes: set[str]) -> bool:
    """Whether one plan was both on all nodes."""
    applied = {plan for (what, plan), at_s in told.first_s.items() if what == "applied" and set(at_s) == nodes}
    return any(set(told.first_s.get(("staged", plan), {})) == nodes for plan in applied)


@pytest.mark.slow
def test_a_small_job_follows_its_first_plan_on_every_node() -> None:
    with World.begun() as world:
        tokens = world.population.nodes(2)
        world.start_operator()
        plans = world.watch("energyplans")
        world.population.energy_plans(["small"])
        job = world.population.job("small", tuple(tokens), stages=8, microbatches=4, tensor_parallel=1)
        before = world.reading()
        jobs_at_s = world.start_nodes(tokens, [job], 8, 4)
        until("a plan on both nodes", LIMIT_S, lambda: staged_and_applied(world.told(), set(tokens)), pause_s=1)
        after, told, sizes = world.reading(), world.told(), dict(world.place.sizes("/registry/joulepath.dev/"))
        status = plans.newest()["small"].body["status"]
    assert status["topology"] | {"dataParallel": 2, "tensorParallel": 1} == status["topology"]
    assert after.cores_since(before, "API server") > 0
    assert after.cores_since(before, "operator") > 0
    calls = told.calls(0, after.at_s + LIMIT_S)
    for plural in ("nodereports", "nodestates", "nodemeasurements"):
        assert calls[f"patch {plural}/status calls"] >= len(tokens)
        assert calls[f"patch {plural}/status sent"] > max(size for key, size in sizes.items() if plural in key) / 2
    assert calls["watch jobplans got"] > 0
    assert min(at_s for of_nodes in told.first_s.values() for at_s in of_nodes.values()) > jobs_at_s
