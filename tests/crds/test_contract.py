"""Models and API objects are the same thing in two spellings; which iterations run what is the same for every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from joulepath_crds import (
    Arm,
    Blocks,
    Contract,
    EnergyPlanSpec,
    EnergyPlanStatus,
    EnergyProfileSpec,
    JobPlanSpec,
    NodeReportStatus,
    NodeStateStatus,
    Purpose,
    StagePlan,
    Sweep,
    api_name,
    arm_of,
    content_hash,
    next_boundary,
)
from joulepath_crds.definitions import KINDS, definition
from joulepath_crds.schema import structural
from tests.examples import examples

EXAMPLES = Path(__file__).parents[2] / "examples"
STAGE = StagePlan(stage=0, order=("F0", "B0"), clocks_mhz=(1200, 0), durations_s=(0.1, 0.2))


def _plan(
    purpose: Purpose,
    activate_at: int | None,
    sweep: Sweep | None = None,
    blocks: Blocks | None = None,
    sparse_from: int | None = None,
) -> JobPlanSpec:
    plan = JobPlanSpec(
        energy_plan="gpt3",
        job="gpt3",
        job_uid="0d3e",
        purpose=purpose,
        hash="",
        activate_at=activate_at,
        sparse_from=sparse_from,
        sweep=sweep,
        blocks=blocks,
        stages=(STAGE,) if purpose is Purpose.ENFORCE else (),
        default_clock_mhz=1410,
    )
    return plan.model_copy(update={"hash": content_hash(plan)})


# Built by hand: hypothesis would call the models by the API's names.
sweeps = st.tuples(st.lists(st.integers(0, 2000), min_size=1, max_size=12).map(tuple), st.integers(2, 10)).map(
    lambda drawn: Sweep(clocks_mhz=drawn[0], iterations_per_block=drawn[1], to_and_fro_mhz=drawn[0][::-1])
)
blocks = st.tuples(st.integers(3, 12), st.integers(0, 20), st.none() | st.integers(2, 9)).map(
    lambda drawn: Blocks(iterations=drawn[0], pairs=drawn[1], every=drawn[2])
)
begins = st.integers(0, 1000)
sweeping = st.builds(_plan, st.just(Purpose.SWEEP), begins, sweep=sweeps)
enforcing = st.builds(
    _plan, st.just(Purpose.ENFORCE), begins, blocks=blocks | st.none(), sparse_from=st.none() | st.integers(0, 1200)
)
standing = st.builds(
    _plan,
    st.just(Purpose.ENFORCE),
    begins,
    blocks=st.builds(
        lambda pairs, every: Blocks(iterations=3, pairs=pairs, every=every), st.integers(0, 9), st.integers(2, 9)
    ),
    sparse_from=st.none() | st.integers(0, 1200),
)


def instances(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever a structural schema allows, in short."""
    match node:
        case {"enum": values}:
            return st.sampled_from(values)
        case {"pattern": pattern}:
            return st.from_regex(pattern, fullmatch=True)
        case {"type": "string"}:
            return st.text(min_size=node.get("minLength", 0), max_size=min(8, node.get("maxLength", 8)))
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            return st.integers(node.get("minimum"), node.get("maximum"))
        case {"type": "number"}:
            low, high = node.get("minimum"), node.get("maximum")
            return st.floats(
                low, high, exclude_min=node.get("exclusiveMinimum", False), allow_nan=False, allow_infinity=False
            )
        case {"type": "array", "items": items}:
            return st.lists(instances(items), min_size=node.get("minItems", 0), max_size=2)
    fields = {name: instances(field) for name, field in node["properties"].items()}
    required = {name: fields.pop(name) for name in node.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


@pytest.mark.parametrize(
    ("python", "api"),
    [
        ("clocks_mhz", "clocksMHz"),
        ("tail_s", "tailSeconds"),
        ("job_uid", "jobUID"),
        ("gpu_uuid", "gpuUUID"),
        ("uuid", "uuid"),
        ("t_min_s", "tMinSeconds"),
        ("energy_per_iteration_j", "energyPerIterationJoules"),
        ("power_w", "powerWatts"),
        ("max_slowdown_percent", "maxSlowdownPercent"),
        ("ci95_low", "ci95Low"),
        ("api_version", "apiVersion"),
    ],
)
def test_api_names_spell_the_units_out(python: str, api: str) -> None:
    assert api_name(python) == api


@given(sweeping | enforcing)
def test_a_job_plan_survives_the_way_through_the_api(plan: JobPlanSpec) -> None:
    assert JobPlanSpec.from_api(plan.to_api()) == plan


@pytest.mark.parametrize(
    "model", [EnergyPlanSpec, EnergyPlanStatus, EnergyProfileSpec, NodeReportStatus, NodeStateStatus]
)
def test_what_the_schema_allows_the_model_reads_and_writes_back(model: type[Contract]) -> None:
    @examples(30)  # of objects with a hundred fields each
    @given(instances(structural(model)))
    def holds(body: dict[str, Any]) -> None:
        value = model.from_api(body)
        assert model.from_api(value.to_api()) == value

    holds()


def test_a_reader_stands_a_newer_writer() -> None:
    assert EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "later": 1}) == EnergyPlanSpec.from_api(
        {"job": {"name": "gpt3"}}
    )


def test_a_plan_with_a_missing_duration_is_refused_by_stage() -> None:
    with pytest.raises(ValidationError, match=r"stage 3: .* they have 1, 1 and 0"):
        StagePlan(stage=3, order=("F0",), clocks_mhz=(0,), durations_s=())


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("energyplan*.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_a_plan(path: Path) -> None:
    (plan,) = [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "EnergyPlan"]
    spec = EnergyPlanSpec.from_api(plan["spec"])
    assert set(plan["spec"]) <= set(spec.to_api())


@given(sweeping | enforcing, st.integers(0, 1000))
def test_the_hash_stands_for_all_but_the_begins(plan: JobPlanSpec, later: int) -> None:
    told = {"activate_at": later, "sparse_from": 2 * later, "hash": "other"}
    assert content_hash(plan.model_copy(update=told)) == plan.hash
    assert content_hash(plan.model_copy(update={"default_clock_mhz": 1980})) != plan.hash


@given(sweeping | enforcing, st.floats(0, 1e3) | st.integers(0, 1000).map(float))
def test_the_hash_is_the_same_in_the_numbers_of_the_api_server(plan: JobPlanSpec, seconds: float) -> None:
    plan = plan.model_copy(update={"plan_iteration_time_s": seconds})
    stored = stored_by_go(plan.to_api())
    assert content_hash(stored) == content_hash(plan)
    assert content_hash(JobPlanSpec.from_api(stored)) == content_hash(plan)


def stored_by_go(body: Any) -> Any:
    """As Go's JSON writes it: 1.0 as 1."""
    match body:
        case float():
            return int(body) if body.is_integer() else body
        case dict():
            return {name: stored_by_go(value) for name, value in body.items()}
        case list():
            return [stored_by_go(value) for value in body]
        case _:
            return body


@given(sweeping | enforcing)
def test_what_a_newer_writer_adds_counts_but_for_what_it_adds_later(plan: JobPlanSpec) -> None:
    assert content_hash({**plan.to_api(), "unheardOfAt": 1, "unheardOfFrom": 2}) == plan.hash
    assert content_hash({**plan.to_api(), "unheardOf": 1}) != plan.hash


def test_the_api_server_adds_nothing_to_a_job_plan() -> None:
    """An older operator doesn't write a newer field, nor does its hash know of that field's default."""
    (kind,) = [one for one in KINDS if one.spec is JobPlanSpec]
    assert "'default':" not in str(definition(kind)["spec"]["versions"][0]["schema"])


@given(sweeping | enforcing, st.integers(0, 3000))
def test_every_rank_reads_the_same_from_its_own_copy(plan: JobPlanSpec, iteration: int) -> None:
    assert arm_of(JobPlanSpec.from_api(plan.to_api()), iteration) == arm_of(plan, iteration)


@given(sweeping | enforcing, st.integers(0, 3000))
def test_nothing_runs_before_every_node_has_staged(plan: JobPlanSpec, iteration: int) -> None:
    assert arm_of(plan.model_copy(update={"activate_at": None}), iteration) == (Arm.DEFAULT, -1)
    assert plan.activate_at is not None
    if iteration < plan.activate_at:
        assert arm_of(plan, iteration) == (Arm.DEFAULT, -1)


@given(enforcing)
def test_each_pair_has_one_plan_and_one_control_block_and_then_the_plan_stays(plan: JobPlanSpec) -> None:
    assert plan.activate_at is not None
    length, pairs = (plan.blocks.iterations, plan.blocks.pairs) if plan.blocks else (1, 0)
    activate_at, plan = plan.activate_at, plan.model_copy(update={"sparse_from": None})
    for pair in range(pairs):
        begin = activate_at + 2 * pair * length
        arms = [arm_of(plan, begin + offset) for offset in range(2 * length)]
        first, second = set(arms[:length]), set(arms[length:])
        assert len(first) == len(second) == 1
        assert {arm for arm, _ in first | second} == {Arm.PLAN, Arm.CONTROL}
        assert {block for _, block in first | second} == {2 * pair, 2 * pair + 1}
    if plan.blocks is None or plan.blocks.every is None:
        assert arm_of(plan, activate_at + 2 * pairs * length) == (Arm.PLAN, -1)


def _arms(plan: JobPlanSpec, pair: int) -> list[tuple[Arm, int]]:
    """Of each iteration of a pair."""
    assert plan.activate_at is not None
    length = plan.blocks.iterations if plan.blocks else 1
    begin = plan.activate_at + 2 * pair * length
    return [arm_of(plan, begin + offset) for offset in range(2 * length)]


@given(standing, st.integers(0, 40))
def test_sparse_pairs_are_one_of_each_window_for_ever(plan: JobPlanSpec, windows: int) -> None:
    """Far behind the dense ones: one control block in a window, and a plan block beside it."""
    assert plan.blocks is not None
    assert plan.blocks.every is not None
    first = (10**6 + windows) * plan.blocks.every
    pairs = [_arms(plan, pair) for pair in range(first, first + plan.blocks.every)]
    measured = [arms for arms in pairs if (Arm.PLAN, -1) not in arms]
    assert len(measured) == 1
    assert {arm for arm, _ in measured[0]} == {Arm.PLAN, Arm.CONTROL}
    assert [arms for arms in pairs if arms not in measured] == [[(Arm.PLAN, -1)] * 6] * (len(pairs) - 1)


@given(standing)
def test_dense_pairs_end_at_the_first_pair_that_begins_after_enough_is_known(plan: JobPlanSpec) -> None:
    assert plan.blocks is not None
    assert plan.activate_at is not None
    always = plan.model_copy(update={"sparse_from": 0})
    for pair in range(20):
        known = plan.sparse_from is not None and plan.activate_at + 6 * pair >= plan.sparse_from
        dense = pair < plan.blocks.pairs and not known
        assert _arms(plan, pair) == _arms(plan if dense else always, pair)
        assert not dense or (Arm.PLAN, -1) not in _arms(plan, pair)


@given(standing, st.integers(0, 3000))
def test_a_rank_that_hears_late_that_pairs_are_sparse_runs_no_more_than_more_default_clocks(
    plan: JobPlanSpec, iteration: int
) -> None:
    late = arm_of(plan.model_copy(update={"sparse_from": None}), iteration)
    assert late[0] is Arm.CONTROL or late[0] is arm_of(plan, iteration)[0]


@given(standing, st.integers(0, 3000))
def test_a_reader_that_knows_no_sparse_pairs_plays_the_plan_in_them(plan: JobPlanSpec, iteration: int) -> None:
    """An agent of the version before, which ignores what it doesn't know: at default clocks in the dense ones only."""
    body = plan.to_api()
    body.pop("sparseFrom", None)
    body["blocks"].pop("every")
    assert plan.activate_at is not None
    assert plan.blocks is not None
    arm, block = arm_of(JobPlanSpec.from_api(body), iteration)
    if iteration >= plan.activate_at + 6 * plan.blocks.pairs:
        assert (arm, block) == (Arm.PLAN, -1)


def test_the_place_of_sparse_pairs_is_drawn() -> None:
    plan = _plan(Purpose.ENFORCE, 0, blocks=Blocks(iterations=3, pairs=0, every=50))
    places = [pair % 50 for pair in range(50 * 200) if arm_of(plan, 6 * pair)[1] >= 0]
    assert len(places) == 200
    assert len(set(places)) > 40


def test_the_order_within_pairs_is_drawn_anew_for_each_plan() -> None:
    def order(clock: int) -> tuple[Arm, ...]:
        plan = _plan(Purpose.ENFORCE, 0, blocks=Blocks(iterations=3, pairs=64))
        plan = plan.model_copy(update={"default_clock_mhz": clock})
        plan = plan.model_copy(update={"hash": content_hash(plan)})
        return tuple(arm_of(plan, 6 * pair)[0] for pair in range(64))

    first = order(1410)
    assert order(1410) == first
    assert order(1980) != first
    assert 16 <= first.count(Arm.PLAN) <= 48


@given(sweeping)
def test_a_sweep_holds_each_clock_for_one_block_and_ends_at_default(plan: JobPlanSpec) -> None:
    assert plan.sweep is not None
    assert plan.activate_at is not None
    length, count = plan.sweep.iterations_per_block, len(plan.sweep.clocks_mhz)
    arms = [arm_of(plan, plan.activate_at + offset) for offset in range(length * count + 1)]
    assert arms[:-1] == [(Arm.SWEEP, block) for block in range(count) for _ in range(length)]
    assert arms[-1] == (Arm.DEFAULT, -1)


@given(sweeping | enforcing, st.integers(0, 3000))
def test_a_late_rank_joins_where_a_block_begins(plan: JobPlanSpec, iteration: int) -> None:
    boundary = next_boundary(plan, iteration)
    assert boundary > iteration
    between = {arm_of(plan, at) for at in range(iteration, boundary)}
    assert len(between) == 1
    assert plan.activate_at is not None
    assert boundary >= plan.activate_at
    if arm_of(plan, boundary)[1] >= 0:
        assert arm_of(plan, boundary) != arm_of(plan, boundary - 1)
