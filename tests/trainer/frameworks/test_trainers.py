"""Hugging Face's Trainer, Accelerate and Lightning, the real ones over gloo: jobs without a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import frameworks
from agent_double import AgentDouble
from tests.trainer.conftest import Nursery
from tests.trainer.frameworks.versions import assert_passes, nursery_of

pytestmark = pytest.mark.slow

MICROBATCHES, STEPS = 2, 10
ORDER = [[kind, 0, m] for m in range(MICROBATCHES) for kind in "FB"]


@pytest.fixture(scope="module", params=frameworks.names("transformers"))
def transformers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "transformers_scenarios", tmp_path_factory)


@pytest.fixture(scope="module", params=frameworks.names("lightning"))
def lightning(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "lightning_scenarios", tmp_path_factory)


def check(nursery: Nursery, scenario: str, *lacking: int, **arguments: Any) -> None:
    """Two ranks tell what ran, but for the iterations after an evaluation."""
    with AgentDouble(nursery.socket) as agent:
        ran = nursery.run(scenario, 2, steps=STEPS, **arguments)
        ranks = agent.ranks(2)
    for rank, orders in zip(ranks, ran, strict=True):
        place = rank.hello.pipeline
        assert (place.schedule, place.stage_count, place.microbatches) == ("NoPipeline", 1, MICROBATCHES)
        assert (rank.hello.data, rank.hello.data_parallel) == (rank.hello.rank, 2)
        assert orders == [ORDER] * STEPS
        assert_passes(rank, orders, *lacking)


def test_hugging_faces_trainer(transformers: Nursery) -> None:
    check(transformers, "train_by_trainer", 5, evaluate_every=5)


def test_accelerate(transformers: Nursery) -> None:
    check(transformers, "train_by_accelerate")


def test_lightning(lightning: Nursery) -> None:
    check(lightning, "train", 5, validate_every=5)
