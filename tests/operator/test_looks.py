"""What a look at a job must not take: whatever grows with its instructions is learnt elsewhere, or kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import Instruction, NodeReportStatus, learnt_from
from joulepath_operator.control.index import Index
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.names import NODE_REPORTS
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, FrontierRequest, PlanRefusal, Request
from joulepath_operator.figures import joining
from joulepath_operator.figures.joining import KeptBlocks, complete_blocks
from joulepath_operator.figures.timing.timelines import Timelines
from joulepath_operator.story.case import ReadyCase

NewWorld = Callable[..., Any]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[int]]:
    """Calls of a method while this lasts."""
    calls, real = list[int](), getattr(owner, name)

    def call(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, call)
        yield calls


def test_nothing_is_learnt_from_timelines_in_the_operator_s_own_process(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    decide, looks = world.decide, list[int]()

    def look(*given: Any) -> Any:
        with counted(monkeypatch, Timelines, "__init__") as made:
            decision = decide(*given)
        looks.append(len(made))
        return decision

    world.decide = look
    world.settle()
    world.run(120)
    assert world.status.phase == "Active"
    assert sum(looks) == 0


def test_a_look_at_a_plan_in_force_reads_no_instruction(active: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    active.iteration += 1
    active.observe()
    with counted(monkeypatch, Instruction, "parse") as read:
        active.settle()
    assert not read


def test_the_frontier_follows_the_plan_and_is_not_asked_for_again_where_there_is_none(new_world: NewWorld) -> None:
    world = new_world()
    plan, asked = world.answer, list[FrontierRequest]()

    def answer(request: Request) -> Answer:
        if not isinstance(request, FrontierRequest):
            return plan(request)  # type: ignore[no-any-return]
        asked.append(request)
        assert world.status.phase in ("Planned", "Active"), "the plan is with the nodes by then"
        return PlanRefusal(Refusal.PLANNER_TIMEOUT, "It took too long.")

    world.answer = answer
    world.settle()
    world.run(200)
    assert world.status.phase == "Active"
    assert world.status.frontier == ()
    (request, *_) = asked
    again = world.decide(request, PlanRefusal(Refusal.PLANNER_TIMEOUT, "It took too long."))
    assert again.ask_planner is None, "an answer that is there is not asked for"
    assert again.status.phase == "Active"
    world.answer = plan
    world.settle()
    assert len(world.status.frontier) == 33, "an operator that was started anew tries again"


def test_orders_that_are_alike_are_one_and_blocks_that_are_the_same_stay(active: Any) -> None:
    index = Index()

    def put() -> None:
        for node in active.nodes():
            status = NodeReportStatus(gpus=node.gpus, jobs=(node.report,)).to_api()
            index.put(NODE_REPORTS, {"metadata": {"name": node.node}, "status": status})

    def ranks() -> list[Any]:
        return [rank for node in index.nodes("team", active.job.uid) for rank in node.report.ranks]

    put()
    before = ranks()
    active.iteration += 1
    put()
    after = ranks()
    assert [rank.iteration for rank in after] == [rank.iteration + 1 for rank in before]
    assert all(one.order is other.order for one, other in zip(before, after, strict=True))
    assert all(one.blocks is other.blocks and one.blocks for one, other in zip(before, after, strict=True))


def test_peers_of_which_no_timeline_is_told_are_not_waited_for(active: Any) -> None:
    gang = Gang.of(active.nodes())
    assert gang is not None
    learnt = learnt_from(1, 8)

    def told(of: Container[tuple[int, int]]) -> bool:
        ranks = tuple(
            rank.model_copy(
                update={
                    "coordinates": rank.coordinates.model_copy(update={"tensor": tensor}),
                    "timeline": rank.timeline if (0, tensor) in of else (),
                }
            )
            for tensor in range(8)
            for rank in gang.ranks
        )
        topology = gang.topology().model_copy(update={"tensor_parallel": 8})
        story: Any = None
        case = ReadyCase(story, story, active.job, replace(gang, ranks=ranks), topology, None)
        return case.timed

    assert told(learnt)
    assert not told(learnt[1:])


def test_blocks_that_are_kept_are_those_that_are_complete(active: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptBlocks()

    def told() -> tuple[Any, ...]:
        return tuple(rank for node in active.nodes() for rank in node.report.ranks)

    ranks = told()
    plan_hash = active.plan.hash
    assert kept(plan_hash, ranks) == complete_blocks(plan_hash, ranks) != {}
    with counted(monkeypatch, joining, "_join") as joined:
        kept(plan_hash, ranks)
    assert not joined
    active.run(24)
    for changed in (told(), told()[1:], (*ranks[:1], *told()[1:]), tuple(_forgets(rank) for rank in ranks), ()):
        assert kept(plan_hash, changed) == complete_blocks(plan_hash, changed)
    assert kept("another", ranks) == {}


def _forgets(rank: Any) -> Any:
    """As its agent does that is started anew, and measures the next blocks."""
    later = tuple(one.model_copy(update={"iteration_time_s": 2 * one.iteration_time_s}) for one in rank.blocks[-2:])
    return rank.model_copy(update={"blocks": later})
