"""Hugging Face's Trainer, Accelerate and Lightning, the real ones over gloo: jobs without a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import frameworks
from agent_double import AgentDouble
from framework_table import Row
from tests.trainer.conftest import Nursery
from tests.trainer.frameworks.versions import assert_passes, nursery_of, of_the_table

pytestmark = pytest.mark.slow

MICROBATCHES, STEPS = 2, 10
ORDER = [[kind, 0, m] for m in range(MICROBATCHES) for kind in "FB"]


@pytest.fixture(scope="module", params=frameworks.names("transformers"))
def transformers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "transformers_scenarios", tmp_path_factory)


@pytest.fixture(scope="module", params=frameworks.names("lightning"))
def lightning(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "lightning_scenarios", tmp_path_factory)


@of_the_table("transformers", "transformers")
def test_what_trainer_and_accelerate_run_is_told(transformers: Nursery, row: Row) -> None:
    evaluating = row.options["scenario"] == "train_by_trainer"
    check(transformers, row, *([5] if evaluating else []), **({"evaluate_every": 5} if evaluating else {}))


@of_the_table("lightning", "lightning")
def test_what_lightning_runs_is_told(lightning: Nursery, row: Row) -> None:
    check(lightning, row, 5, validate_every=5)


def check(nursery: Nursery, row: Row, *lacking: int, **arguments: Any) -> None:
    """Two ranks tell what ran, but for the iterations after an evaluation."""
    with AgentDouble(nursery.socket) as agent:
        ran = nursery.run(row.options["scenario"], 2, steps=STEPS, **arguments)
        ranks = agent.ranks(2)
    for rank, orders in zip(ranks, ran, strict=True):
        place = rank.hello.pipeline
        assert (place.schedule, place.stage_count, place.microbatches) == ("NoPipeline", 1, MICROBATCHES)
        assert (rank.hello.data, rank.hello.data_parallel) == (rank.hello.rank, 2)
        assert orders == [ORDER] * STEPS
        assert_passes(rank, orders, *lacking)
