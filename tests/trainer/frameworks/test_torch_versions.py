"""Pipelines of torch, observed through the hook, in versions from the oldest.

There is one rank with one stage: what older versions exchange between ranks, gloo can't. An environment of an older
torch takes gigabytes, since PyPI has it with CUDA only: `make test-frameworks` makes them, and no other target does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent_double import AgentDouble
from framework_table import Row
from tests.trainer.conftest import Nursery
from tests.trainer.frameworks.versions import nursery_of, of_the_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "JOULEPATH_OLD_TORCH" not in os.environ, reason="15 GB of environments: make test-frameworks runs it"
    ),
]

MICROBATCHES, STEPS = 4, 6


@pytest.fixture(scope="module")
def torch_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Nursery]]:
    for nursery in nursery_of(request.param, "torch_version_scenarios", tmp_path_factory):
        yield request.param.partition("-")[2], nursery


@of_the_table("torch_version", "torch_of")
def test_what_a_rank_ran_is_told_instruction_for_instruction(torch_of: tuple[str, Nursery], row: Row) -> None:
    (version, nursery), rounds = torch_of, row.options["rounds"]
    with AgentDouble(nursery.socket) as agent:
        ran = nursery.run("train", 1, steps=STEPS if rounds == 1 else 2 * STEPS, **row.options)
        ranks = agent.ranks(1 if rounds == 1 else 2)
    ranks = [rank for rank in ranks if rank.hello.pipeline.microbatches == rounds * MICROBATCHES]
    assert [rank.hello.rank for rank in ranks] == [0]
    for number, rank in enumerate(ranks):
        assert rank.hello.framework.startswith(f"torch {version}")
        assert rank.hello.lacks == ""
        assert len(rank.records) >= STEPS - 1
        of_last = ran[number][-1]
        for record in rank.records[1:]:
            forwards = [[span.stage, span.kind] for span in record.spans if span.kind == "F"]
            assert forwards == of_last
            assert len(record.spans) == 2 * rounds * MICROBATCHES
            assert {span.microbatch for span in record.spans} == set(range(rounds * MICROBATCHES))
