"""Why ranks don't report: what the status says, and which remedy it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from joulepath_operator.facts.absence import Absence, Lack
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.observation import NodeAgent, Pod
from joulepath_operator.story.gathering import explain

NewWorld = Callable[..., Any]
PREDATES = Absence(Lack.UNANNOTATED, "2026-01-01T00:00:00Z")


def injected(world: Any) -> tuple[str, str, str]:
    world.settle()
    condition = world.condition("Injected")
    return condition.status, condition.reason, condition.message


def test_pods_that_predate_the_annotation_are_told_the_command(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods = 0, (PREDATES, PREDATES)
    _, reason, message = injected(world)
    assert reason == "PodsPredateAnnotation"
    assert "kubectl -n team get pytorchjob gpt3 -o yaml | kubectl -n team replace --force -f -" in message


def test_a_gang_that_is_injected_in_part_is_never_slowed(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods = 4, (None, PREDATES)
    _, reason, message = injected(world)
    assert reason == "PodsPredateAnnotation"
    assert "1 of 2 pods" in message
    assert not world.plans


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_hostpath_is_told_label_and_remedy(new_world: NewWorld, level: str) -> None:
    world = new_world()
    world.ranks, world.pods, world.admission = 0, (PREDATES, PREDATES), Admission("team", level)
    _, reason, message = injected(world)
    assert reason == "PodSecurityForbids"
    assert "hostPath" in message
    assert f"level {level}" in message
    assert "pod-security.kubernetes.io/enforce=privileged" in message


def test_a_namespace_without_the_label_is_told_the_command_before_there_are_pods(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods, world.admission = 0, (), Admission("team", "restricted", labelled=False)
    _, reason, message = injected(world)
    assert reason == "NamespaceNotLabelled"
    assert "kubectl label namespace team joulepath.dev/injection=volumes" in message


@pytest.mark.parametrize("lack", [Lack.UNLABELLED, Lack.FAILS])
def test_a_level_is_not_blamed_where_the_webhook_was_not_even_asked_or_has_injected_before(
    new_world: NewWorld, lack: Lack
) -> None:
    world = new_world()
    world.ranks, world.pods, world.admission = 0, (Absence(lack, "why"),), Admission("team", "restricted")
    assert injected(world)[1] == lack.value


def test_injected_pods_that_do_not_train_yet_are_waited_for(new_world: NewWorld) -> None:
    world = new_world()
    world.ranks, world.pods = 0, (None, None)
    _, reason, message = injected(world)
    assert reason == "WaitingForRanks"
    assert message.endswith("kubectl -n team logs gpt3-worker-0 | grep joulepath.")
    assert len(message) < 250, "so every training begins"
    world.later_s += 121
    _, _, message = injected(world)
    for possibility in ("python -I, -E and -S", "PYTHONPATH anew", "sitecustomize", "too old", "optimizer of torch"):
        assert possibility in message, "nobody knows which"
    world.pods = ()
    _, reason, message = injected(world)
    assert reason == "NoPods"
    assert "kubectl -n team describe pytorchjob gpt3" in message


@pytest.mark.parametrize(
    ("agent", "reason", "remedy"),
    [
        (NodeAgent("node-1", None, False, False), "NoAgent", "kubectl label node node-1 nvidia.com/gpu.present=true"),
        (NodeAgent("node-1", "jp/agent-x", False, True), "AgentNotReady", "kubectl -n jp logs agent-x"),
        (NodeAgent("node-1", "jp/agent-x", True, False), "NoNodeReport", "kubectl -n jp logs agent-x"),
        (NodeAgent("node-1", "jp/agent-x", True, True), "RanksMissing", "kubectl -n team logs gpt3-worker-1"),
    ],
)
def test_a_node_whose_ranks_are_silent_is_told_with_what_its_agent_lacks(
    new_world: NewWorld, agent: NodeAgent, reason: str, remedy: str
) -> None:
    world = new_world()
    world.ranks, world.pods, world.agents = 4, (None, None), (agent,)
    status, why, message = injected(world)
    assert (status, why) == ("False", reason)
    assert world.decide().requeue_after_s is not None, "nobody watches pods and agents"
    assert message.startswith("4 of 8 ranks report")
    assert remedy in message


def test_pods_that_do_not_run_are_told_with_the_kubelets_reason(new_world: NewWorld) -> None:
    world = new_world()
    observation = replace(world.observe(), nodes=(), pods=(Pod("gpt3-worker-0", "node-0", "ImagePullBackOff"),))
    reason, message = explain(observation, world.job, None, lasts=False)
    assert reason == "PodsNotRunning"
    assert "gpt3-worker-0: ImagePullBackOff" in message


def test_ranks_that_fall_silent_are_not_told_as_if_training_had_never_begun(active: Any) -> None:
    active.ranks, active.pods = 0, (None, None)
    active.settle_later()
    degraded = active.condition("Degraded")
    assert (degraded.status, degraded.reason) == ("True", "RanksSilent")
    assert "have reported before" in degraded.message


def test_a_namespace_that_is_restricted_later_is_not_blamed_for_silence(active: Any) -> None:
    active.ranks, active.pods, active.admission = 4, (None, None), Admission("team", "restricted")
    active.settle()
    assert active.condition("Degraded").reason == "RanksMissing"
