"""How pods without the trainer are told: each reason with count, first pod and remedy, and none before it is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joulepath_operator.facts.absence import Absence, Lack, Way
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.observation import NodeAgent

NewWorld = Callable[..., Any]
RESTART = "kubectl -n team get pytorchjob gpt3 -o yaml | kubectl -n team replace --force -f -"
REMEDIES = {
    Lack.FAILS: "See that an agent runs on that node",
    Lack.UNLABELLED: "kubectl label namespace {its why} joulepath.dev/injection=volumes",
    Lack.UNSUITED: "change that in the job's manifest",
    Lack.BEFORE: "before the injector of their node did",
    Lack.LATE: "no answer within 0.1 s",
    Lack.OLD_PYTHON: "take an image whose Python is new enough",
    Lack.NO_INJECTOR: "See the container injector of the agent's pod there",
    Lack.NRI_OFF: '[plugins."io.containerd.nri.v1.nri"]',
    Lack.NRI_FAILS: "so has the runtime's",
    Lack.UNREPORTED: "Apply the chart's CRDs",
    Lack.UNANNOTATED: "before the job's annotation was last written",
    Lack.BEFORE_LABEL: "before the label joulepath.dev/injection=volumes was last written",
    Lack.STOPPED: "set PYTHONPATH in their env need no init container",
    Lack.DENIED: "Let the policy allow the node's folders /run/joulepath and /var/lib/joulepath/trainer",
    Lack.MISSED: "",
    Lack.NO_GPU: "Ask for a whole GPU for each rank",
}

TOLD_WHY = {
    *(Lack.FAILS, Lack.UNLABELLED, Lack.UNSUITED, Lack.OLD_PYTHON, Lack.NRI_FAILS),
    *(Lack.UNANNOTATED, Lack.BEFORE_LABEL, Lack.STOPPED, Lack.DENIED, Lack.NO_GPU),
}


def injected(world: Any) -> tuple[str, str, str]:
    world.settle()
    condition = world.condition("Injected")
    return condition.status, condition.reason, condition.message


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("lack", Lack)
def test_each_reason_is_told_with_count_pod_why_and_remedy(new_world: NewWorld, way: Way, lack: Lack) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = way, 0, (Absence(lack, "{its why}"),) * 3
    status, reason, message = injected(world)
    assert (status, reason) == ("False", lack.value)
    assert message.startswith("3 of 3 pods of PyTorchJob gpt3 (such as gpt3-worker-0 on node node-0) ")
    assert REMEDIES[lack] in message
    assert RESTART in message
    assert ("{its why}" in message) == (lack in TOLD_WHY)
    assert world.decide().requeue_after_s is not None, "nobody watches pods"


def test_a_reason_stands_in_a_column_and_is_one_event_when_it_becomes_known(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods = 0, (Absence(Lack.UNSUITED, "its why"),) * 3
    decision = world.decide()
    assert decision.notice is not None
    assert (decision.notice.reason, decision.notice.message) == (Lack.UNSUITED, decision.status.message)
    assert decision.status.progress == Lack.UNSUITED
    world.settle()
    assert world.decide().notice is None, "it is known by now"
    world.pods = (Absence(Lack.NO_GPU, "its why"),) * 3
    assert world.decide().notice.reason == Lack.NO_GPU


SURMISED = [lack for lack in Lack if lack.surmised]


@pytest.mark.parametrize("lack", [Lack.NO_INJECTOR, Lack.NRI_OFF, Lack.NRI_FAILS, Lack.UNREPORTED])
def test_pods_that_the_webhook_injected_before_are_told_that_they_are_served_again_as_they_run(
    new_world: NewWorld, lack: Lack
) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = Way.NRI, 0, (Absence(lack, by_webhook=True),) * 2
    status, reason, message = injected(world)
    assert (status, reason) == ("False", lack.value)
    assert message.startswith("2 of 2 pods")
    assert REMEDIES[lack] in message
    assert "They are served again, as they run" in message
    assert "injection: volumes" in message
    assert RESTART not in message
    world.pods = (Absence(lack, by_webhook=True), Absence(lack))
    assert injected(world)[2].startswith("1 of 2 pods of PyTorchJob gpt3 (gpt3-worker-1 "), "those first that lack it"


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("lack", SURMISED)
def test_what_is_surmised_of_pods_counts_for_nothing_once_they_report(
    new_world: NewWorld, way: Way, lack: Lack
) -> None:
    """As of those that nodes injected before their cluster went back to volumes, or whose report lacks its fields."""
    world = new_world()
    world.way, world.ranks, world.pods = way, 4, (Absence(lack), None)
    assert injected(world)[1] == "RanksMissing"


def test_the_runbook_has_each_reason() -> None:
    table = (Path(__file__).parents[2] / "docs/runbook.md").read_text()
    assert not [lack for lack in Lack if f"| `{lack.value}` |" not in table]


def test_nobody_is_blamed_by_the_ways_of_the_other(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods = 0, (Absence(Lack.MISSED),)
    assert "See whether it runs" in injected(world)[2]
    world.way = Way.NRI
    _, _, message = injected(world)
    assert "webhook" not in message
    assert "the kubelet or the API server" in message


@pytest.mark.parametrize("way", Way)
def test_a_gang_with_a_pod_without_the_trainer_is_observed_and_never_slowed(new_world: NewWorld, way: Way) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = way, 4, (None, Absence(Lack.LATE))
    _, reason, message = injected(world)
    assert reason == "InjectedTooLate"
    assert message.startswith("1 of 2 pods of PyTorchJob gpt3 (gpt3-worker-1 on node node-1) ")
    assert not world.plans


@pytest.mark.parametrize("way", Way)
def test_a_plan_in_force_stays_and_the_reason_is_told_as_amiss(active: Any, way: Way) -> None:
    active.way, active.ranks, active.pods = way, 4, (None, Absence(Lack.UNSUITED, "why"))
    active.settle_later()
    assert active.condition("Degraded").reason == "PodsUnsuited"
    assert active.plans


def test_of_several_reasons_the_surest_is_told_with_its_own_count(new_world: NewWorld) -> None:
    world = new_world()
    late, missed = Absence(Lack.LATE), Absence(Lack.MISSED)
    world.way, world.ranks, world.pods = Way.NRI, 0, (missed, late, None, late)
    _, reason, message = injected(world)
    assert reason == "InjectedTooLate"
    assert message.startswith("2 of 4 pods of PyTorchJob gpt3 (such as gpt3-worker-1 on node node-1) ")


@pytest.mark.parametrize("lack", SURMISED)
def test_what_is_surmised_of_a_silent_agent_is_not_told_where_the_agent_is_amiss(
    new_world: NewWorld, lack: Lack
) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = Way.NRI, 0, (Absence(lack),)
    world.agents = (NodeAgent("node-0", None, False, True),)
    assert injected(world)[1] == "NoAgent"
    world.way = Way.VOLUMES
    assert injected(world)[1] == lack.value, "a webhook needs no agent"


def test_what_is_known_of_a_pod_is_told_whatever_its_agent_does_now(new_world: NewWorld) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = Way.NRI, 0, (Absence(Lack.UNSUITED, "why"),)
    world.agents = (NodeAgent("node-0", "jp/agent-x", False, True),)
    assert injected(world)[1] == "PodsUnsuited"


def test_a_pod_without_a_gpu_is_no_rank_unless_it_alone_is_missing(new_world: NewWorld) -> None:
    world = new_world()
    no_gpu = Absence(Lack.NO_GPU, "no container asks for one")
    world.ranks, world.pods = 0, (None, no_gpu)
    assert injected(world)[1] == "WaitingForRanks", "others may train"
    world.ranks = 4
    _, reason, message = injected(world)
    assert reason == "NoGPUHeld", "the others do, and this one never will"
    assert message.startswith("1 of 2 pods")


def test_gpus_that_no_agent_touches_are_told_with_the_agents_reason(new_world: NewWorld) -> None:
    world = new_world()
    world.way, world.ranks, world.pods = Way.NRI, 0, (None,)
    world.agents = (NodeAgent("node-0", "jp/agent-x", True, True, "it is in MIG mode"),)
    _, reason, message = injected(world)
    assert reason == "GPURefused"
    assert "No GPU of node node-0 can be used: it is in MIG mode" in message


@pytest.mark.parametrize(
    ("way", "then"), [(Way.VOLUMES, "it adds none here in a moment"), (Way.NRI, "Joulepath adds nothing to them")]
)
def test_pods_that_the_api_server_refuses_are_told_with_its_own_words(new_world: NewWorld, way: Way, then: str) -> None:
    world = new_world()
    world.way, world.ranks = way, 0
    _, reason, message = injected(world)
    assert (reason, "kubectl -n team describe pytorchjob gpt3" in message) == ("NoPods", True), "nobody has said why"
    world.denied = (
        "pods \"gpt3-master-0\" is forbidden: ValidatingAdmissionPolicy 'no-host' denied request: no hostPath."
    )
    _, reason, message = injected(world)
    assert reason == "NoPods"
    assert f"the API server refuses them ({world.denied[:-1]}). " in message
    assert then in message


def test_pods_to_which_nothing_is_added_are_not_said_to_be_refused_for_that(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.ranks, world.denied = 0, 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
    world.admission = Admission("team", "restricted")
    _, reason, message = injected(world)
    assert reason == "NoPods"
    assert "The webhook adds nothing to them, as namespace team enforces Pod Security level restricted." in message
    assert "in a moment" not in message
