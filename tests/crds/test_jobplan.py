"""How large a JobPlan may be, and how it becomes smaller."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import MOST_PLAN_BYTES, Begins, JobPlanSpec, Purpose, StagePlan, content_hash
from joulepath_rules.packing import packed
from tests.examples import examples

BOMB = "json+zlib:" + base64.b64encode(zlib.compress(b" " * 3 * 2**20)).decode()


def plan(*stages: StagePlan) -> JobPlanSpec:
    """A plan of these stages."""
    return JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="u",
        purpose=Purpose.ENFORCE,
        hash="",
        default_clock_mhz=1410,
        stages=stages,
    )


def of_pipeline(stages: int, microbatches: int) -> JobPlanSpec:
    """Of each instruction another one of four clocks, by chance, with seconds of its stage, kind and clock."""
    draw, clocks = random.Random(1), (0, 1350, 1305, 1260)
    order = tuple(f"{kind}{number}" for number in range(microbatches) for kind in "FB")
    found = []
    for stage in range(stages):
        times_s = {(kind, clock): round(draw.uniform(0.003, 0.006), 6) for kind in "FB" for clock in clocks}
        chosen = tuple(draw.choice(clocks) for _ in order)
        durations = tuple(times_s[name[0], clock] for name, clock in zip(order, chosen, strict=True))
        found.append(StagePlan(stage=stage, order=order, clocks_mhz=chosen, durations_s=durations))
    return plan(*found)


def test_a_plan_of_usual_size_is_written_by_its_fields() -> None:
    small = of_pipeline(8, 12)
    assert small.fitting() is small
    assert small.unpacked() is small
    assert small.size == len(json.dumps(small.to_api(), separators=(",", ":")))


def test_one_of_sixty_five_thousand_instructions_fits_as_a_string_and_says_the_same() -> None:
    large = of_pipeline(64, 512)
    assert large.size > 4 * MOST_PLAN_BYTES
    fitting = large.fitting()
    assert fitting.size <= MOST_PLAN_BYTES
    assert fitting.fitting() is fitting
    told = fitting.to_api()
    assert "stages" not in told
    read = JobPlanSpec.from_api(told)
    assert read.stages == (), "as those read it that don't know of strings"
    assert read.unpacked().stages == large.stages
    assert content_hash(told) == content_hash(read) == content_hash(read.unpacked()) != content_hash(large)
    begun = read.unpacked().model_copy(update={"activate_at": 7})
    assert content_hash(begun.to_api()) == content_hash(told), "also where it is written again"


STAGES = st.lists(
    st.tuples(st.sampled_from(("F0", "B0", "F1&0:B0")), st.integers(0, 10000), st.floats(0, 1e6)), max_size=20
)


@examples(50)
@given(st.lists(STAGES, max_size=4))
def test_whatever_stages_hold_survives_in_a_string(drawn: list[list[tuple[str, int, float]]]) -> None:
    stages = []
    for number, instructions in enumerate(drawn):
        order, clocks, durations = zip(*instructions, strict=True) if instructions else ((), (), ())
        stages.append(StagePlan(stage=number, order=order, clocks_mhz=clocks, durations_s=durations))
    whole = plan(*stages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joulepath_crds.jobplan.MOST_PLAN_BYTES", 0)
        body = whole.fitting().to_api()
    assert ("packedStages" in body) == bool(stages)
    assert JobPlanSpec.from_api(body).unpacked().stages == whole.stages


@pytest.mark.parametrize(
    "columns",
    [
        7,
        [7],
        [{}],
        [{"stage": 0, "order": ["F0"], "choices": [], "chosen": [0]}],
        [{"stage": 0, "order": ["F0"], "choices": [[900]], "chosen": [0]}],
        [{"stage": 0, "order": ["F0"], "choices": [[900, 0.1]], "chosen": [0, 0]}],
        [{"stage": 0, "order": ["F0"], "choices": [[90000, 0.1]], "chosen": [0]}],
        [{"stage": 0, "order": ["F0"], "choices": [[900, -0.1]], "chosen": [0]}],
        [{"stage": 0, "order": ["F0"], "choices": [[900, 0.1]], "chosen": ["0"]}],
        [{"stage": -1, "order": [], "choices": [], "chosen": []}],
    ],
)
def test_a_string_of_no_stages_is_a_value_error(columns: object) -> None:
    spec = plan().model_copy(update={"packed_stages": packed(columns)})
    with pytest.raises(ValueError, match=r"no stages|validation error|to unpack"):
        spec.unpacked()


def test_a_plan_of_more_than_is_unpacked_stays_too_large() -> None:
    """However well it is compressed."""
    order = tuple(f"{kind}{number}" for number in range(2048) for kind in "FB")
    stage = StagePlan(stage=0, order=order, clocks_mhz=(0,) * 4096, durations_s=(0.01,) * 4096)
    huge = plan(*(stage.model_copy(update={"stage": number}) for number in range(64)))
    assert huge.fitting() is huge


@pytest.mark.parametrize("text", ["", "columns:AAAA", "json+zlib:!", BOMB])
def test_a_string_that_is_none_or_holds_too_much_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="packed"):
        plan().model_copy(update={"packed_stages": text}).unpacked()


def test_what_is_told_beside_a_plan_is_what_its_hash_leaves_out() -> None:
    spec = plan().model_copy(update={"hash": "h", "activate_at": 7, "sparse_from": 90})
    assert Begins.of(spec).to_api() == {"hash": "h", "activateAt": 7, "sparseFrom": 90}
    left_out = {name for name in spec.to_api() if content_hash({name: 1}) == content_hash({})}
    assert left_out == Begins.of(spec).to_api().keys()
