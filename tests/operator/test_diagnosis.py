"""Why a pod has no trainer: each reason, from a pod as the API server has it and the report of its node."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from joulepath_crds import (
    INJECTOR_ABSENT,
    INJECTOR_READY,
    INJECTOR_UNHEARD,
    INJECTOR_UNTOLD,
    InjectionReport,
    NodeReportStatus,
    OldPythonReport,
)
from joulepath_injector.words import Outcome
from joulepath_operator.facts.absence import Absence, Lack, Means, Way
from joulepath_operator.facts.admission import Admission, Stop
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.diagnosis import INJECTED, OUTCOMES, diagnose
from joulepath_operator.injection.init_container import READER
from joulepath_operator.injection.patch import inject

WHOLE = {"limits": {"nvidia.com/gpu": "4"}}
GPUS = ("nvidia.com/gpu",)
ASKED = Admission("team")
BEFORE, CREATED, AFTER, NOW = (f"2026-01-01T00:0{minute}:00Z" for minute in range(4))


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "pytorch", "image": "example.test/user:1", "resources": WHOLE, **fields}


def pod(*containers: dict[str, Any], started: str | None = CREATED, **spec: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": "ContainerCreating"}} if started is None else {"running": {"startedAt": started}}
    return {
        "metadata": {"name": "gpt3-worker-0", "uid": "uid-0", "creationTimestamp": CREATED},
        "spec": {"containers": list(containers) or [container()], "nodeName": "node-0", **spec},
        "status": {"phase": "Running", "containerStatuses": [{"name": "pytorch", "state": state}]},
    }


def report(*outcomes: str, why: str = "", uid: str = "uid-0", injector: str = INJECTOR_READY) -> NodeReportStatus:
    told = tuple(
        InjectionReport(pod_uid=uid, namespace="team", pod="p", container=f"c-{number}", outcome=outcome, why=why)
        for number, outcome in enumerate(outcomes)
    )
    return NodeReportStatus(injection=told, injector=injector)


def by_webhook(
    body: dict[str, Any],
    annotated_at: str | None = BEFORE,
    means: Means | None = None,
    admission: Admission = ASKED,
) -> Absence | None:
    return diagnose(body, None, means or Means(), admission, annotated_at, NOW)


def by_node(
    body: dict[str, Any], told: NodeReportStatus | None, annotated_at: str | None = BEFORE, now: str = NOW
) -> Absence | None:
    return diagnose(body, told, Means(Way.NRI), None, annotated_at, now)


def test_a_pod_of_a_time_at_which_others_were_refused_is_told_so_whatever_it_would_have_got() -> None:
    denied = replace(STOPPED, denied=True)
    for one in (pod(), pod(container(env=[{"name": "PYTHONPATH", "value": "/app"}]))):
        found = by_webhook(one, admission=Admission("team", stop=denied))
        assert found == Absence(Lack.DENIED, f"since {BEFORE}: pod p: StartError")


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("hand", ["webhook", "node"])
def test_an_injected_pod_whose_python_is_too_old_is_told_both_versions(way: Way, hand: str) -> None:
    """Of whichever release pods were given the trainer, and even if the injector is gone by now."""
    body = pod()
    if hand == "webhook":
        body = jsonpatch.apply_patch(body, json.loads(json.dumps(inject(body, GPUS).patch)))
    other, its = (OldPythonReport(pod_uid=uid, version="3.8", needed="3.10") for uid in ("other", "uid-0"))
    for injector in (INJECTOR_READY, INJECTOR_ABSENT):
        told = report(*(["Injected"] if hand == "node" else []), injector=injector)
        assert diagnose(
            body, told.model_copy(update={"old_pythons": (other, its)}), Means(way), ASKED, BEFORE, NOW
        ) == Absence(Lack.OLD_PYTHON, "its Python 3.8 is older than the 3.10 that the trainer needs")
    unsure = report("Injected").model_copy(update={"old_pythons": (other,)})
    assert diagnose(pod(), unsure, Means(way), ASKED, BEFORE, NOW) is None


# the webhook's way


def test_a_pod_that_the_webhook_has_patched_lacks_nothing() -> None:
    patched = jsonpatch.apply_patch(pod(), json.loads(json.dumps(inject(pod(), GPUS).patch)))
    assert by_webhook(patched) is None
    assert by_node(patched, report()) is None, "nor where the node injects from now on"


@pytest.mark.parametrize(
    ("second", "word"),
    [
        ({"image": "example.test/other:1"}, "its container second has another image or envFrom"),
        ({"env": [{"name": "PYTHONPATH", "valueFrom": {}}]}, "its container second comes by valueFrom"),
        ({}, None),
        ({"resources": {}, "image": "example.test/other:1"}, None),
    ],
)
def test_a_container_that_the_webhook_left_out_beside_others_is_told_with_its_own_reason(
    second: dict[str, Any], word: str | None
) -> None:
    body = pod(container(), container(**{"name": "second", **second}))
    found = by_webhook(jsonpatch.apply_patch(body, json.loads(json.dumps(inject(body, GPUS).patch))))
    if word is None:
        assert found is None
    else:
        assert found is not None
        assert (found.reason, word in found.why) == (Lack.UNSUITED, True)


def test_a_pod_that_the_node_has_injected_lacks_nothing_where_a_webhook_does_it_from_now_on() -> None:
    assert diagnose(pod(), report("Injected"), Means(), ASKED, BEFORE, NOW) is None


def test_a_pod_that_was_there_before_the_annotation_predates_it() -> None:
    assert by_webhook(pod(), annotated_at=AFTER) == Absence(Lack.UNANNOTATED, AFTER)
    assert by_node(pod(), report(), annotated_at=AFTER) == Absence(Lack.UNANNOTATED, AFTER)


@pytest.mark.parametrize("annotated_at", [BEFORE, CREATED, None])
def test_a_pod_that_nothing_was_in_the_way_of_was_missed(annotated_at: str | None) -> None:
    assert by_webhook(pod(), annotated_at) == Absence(Lack.MISSED)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"os": {"name": "windows"}}, "windows"),
        ({"hostUsers": False}, "hostUsers"),
        ({"volumes": [{"name": "joulepath", "emptyDir": {}}]}, "the name joulepath itself"),
        ({"initContainers": [{"name": READER, "image": "i"}]}, f"the name {READER} itself"),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/joulepath"}])]}, "mounts /joulepath"),
        ({"containers": [container(env=[{"name": "PYTHONPATH", "valueFrom": {}}])]}, "comes by valueFrom"),
    ],
)
@pytest.mark.parametrize("annotated_at", [BEFORE, AFTER])
def test_what_is_in_the_webhooks_way_is_told_before_any_guess(
    spec: dict[str, Any], word: str, annotated_at: str
) -> None:
    found = by_webhook(pod(**{"containers": [container()], **spec}), annotated_at)
    assert found is not None
    assert found.reason is Lack.UNSUITED
    assert word in found.why


def unlabelled(*containers: dict[str, Any], **spec: Any) -> Lack | None:
    found = by_webhook(pod(*containers, **spec), admission=Admission("team", labelled=False))
    return None if found is None else found.reason


def test_a_pod_of_a_namespace_without_the_label_lacks_that_before_all_else_and_a_gpu_before() -> None:
    found = by_webhook(pod(), AFTER, admission=Admission("team", labelled=False, stop=STOPPED))
    assert found == Absence(Lack.UNLABELLED, "team")
    assert unlabelled(hostUsers=False) is Lack.UNLABELLED
    assert unlabelled(container(resources={})) is Lack.NO_GPU, "the webhook would have left it alone"
    injected = pod()
    injected["metadata"]["annotations"] = {INJECTED_ANNOTATION: "pytorch"}
    assert by_webhook(injected, admission=Admission("team", labelled=False)) is None, "it came before that"


def test_a_pod_that_was_there_before_the_label_predates_it() -> None:
    asked = Admission("team", labelled_at=AFTER)
    assert by_webhook(pod(), admission=asked) == Absence(Lack.BEFORE_LABEL, AFTER)
    assert by_webhook(pod(), AFTER, admission=asked) == Absence(Lack.UNANNOTATED, AFTER)
    assert by_webhook(pod(), admission=Admission("team", labelled_at=CREATED)) == Absence(Lack.MISSED)


STOPPED = Stop(BEFORE, AFTER, 600, "pod p: StartError")
OVER = replace(STOPPED, over_at=BEFORE)


@pytest.mark.parametrize(
    ("stop", "found"),
    [
        (STOPPED, Absence(Lack.STOPPED, f"since {BEFORE}: pod p: StartError")),
        (replace(STOPPED, over_at=AFTER), Absence(Lack.STOPPED, f"since {BEFORE}: pod p: StartError")),
        (replace(STOPPED, over_at="2026-01-01T00:00:55Z"), Absence(Lack.STOPPED, f"since {BEFORE}: pod p: StartError")),
        (replace(STOPPED, since=AFTER), Absence(Lack.MISSED)),
        (OVER, Absence(Lack.MISSED)),
    ],
    ids=["holds", "held then", "not heard of yet", "came later", "was over"],
)
def test_a_pod_of_a_time_at_which_injection_was_stopped_is_told_so(stop: Stop, found: Absence) -> None:
    assert by_webhook(pod(), admission=Admission("team", stop=stop)) == found


def test_a_pod_that_needs_no_init_container_was_not_left_out_by_a_stop() -> None:
    body = pod(container(env=[{"name": "PYTHONPATH", "value": "/app"}]))
    assert by_webhook(body, admission=Admission("team", stop=STOPPED)) == Absence(Lack.MISSED)


@pytest.mark.parametrize("way", Way)
def test_a_pod_that_our_init_container_holds_up_is_told_so(way: Way) -> None:
    body = of_the_webhook(started=None)
    waiting = {"reason": "RunContainerError", "message": "no such file"}
    body["status"]["initContainerStatuses"] = [{"name": READER, "state": {"waiting": waiting}}]
    found = diagnose(body, None, Means(way), ASKED, BEFORE, NOW)
    assert found == Absence(Lack.FAILS, "pod gpt3-worker-0 on node node-0: RunContainerError: no such file")


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({}, ["no container has a limit of nvidia.com/gpu"]),
        ({"limits": {"nvidia.com/mig-1g.10gb": "1", "cpu": "4"}}, ["nvidia.com/mig-1g.10gb", "webhook.gpuResource"]),
        ({"claims": [{"name": "gpu"}]}, ["claim (DRA)", "injection: nri"]),
    ],
    ids=["none", "MIG", "DRA"],
)
def test_a_pod_that_holds_no_gpu_by_the_webhooks_rule_is_told_what_it_asks_for(
    resources: dict[str, Any], words: list[str]
) -> None:
    found = by_webhook(pod(container(resources=resources)))
    assert found is not None
    assert found.reason is Lack.NO_GPU
    assert all(word in found.why for word in words)


def test_the_sites_own_resources_are_the_webhooks() -> None:
    body = pod(container(resources={"limits": {"site.example/gpu": "1"}}))
    assert by_webhook(body, means=Means(gpu_resources=("nvidia.com/gpu", "site.example/gpu"))) == Absence(Lack.MISSED)


# the node's way


def test_operator_and_injector_know_the_same_outcomes() -> None:
    assert {INJECTED, *OUTCOMES} == set(Outcome)


@pytest.mark.parametrize(
    ("outcomes", "lack"),
    [
        (("Unsuited",), Lack.UNSUITED),
        (("Before",), Lack.BEFORE),
        (("Late",), Lack.LATE),
        (("Late", "Unsuited", "Before"), Lack.UNSUITED),
        (("Late", "Injected"), None),
    ],
)
def test_what_the_injector_has_told_counts(outcomes: tuple[str, ...], lack: Lack | None) -> None:
    found = by_node(pod(), report(*outcomes, why="The container mounts /joulepath itself."))
    assert (found and found.reason) == lack
    assert found is None or re.fullmatch(r"container c-\d: The container mounts /joulepath itself", found.why)


def test_the_word_of_another_pod_s_containers_counts_for_nothing() -> None:
    assert by_node(pod(), report("Injected", uid="uid-9")) == Absence(Lack.MISSED)


STATES = [
    ("", Lack.UNREPORTED),
    (INJECTOR_ABSENT, Lack.NO_INJECTOR),
    (INJECTOR_UNTOLD, Lack.NRI_OFF),
    (INJECTOR_UNHEARD, Lack.NRI_FAILS),
]


@pytest.mark.parametrize(("injector", "lack"), STATES)
@pytest.mark.parametrize("annotated_at", [BEFORE, AFTER])
def test_a_node_without_injector_or_nri_is_told_before_any_guess(injector: str, lack: Lack, annotated_at: str) -> None:
    assert by_node(pod(), report(injector=injector), annotated_at) == Absence(lack)


def test_why_the_runtime_does_not_tell_the_injector_is_told() -> None:
    told = NodeReportStatus(injector=INJECTOR_UNHEARD, injector_why="it refused: the message is too large.")
    assert by_node(pod(), told) == Absence(Lack.NRI_FAILS, "it refused: the message is too large")


def of_the_webhook(**fields: Any) -> dict[str, Any]:
    made = pod(**fields)
    made["metadata"]["annotations"] = {INJECTED_ANNOTATION: "pytorch"}
    return made


@pytest.mark.parametrize(("injector", "lack"), STATES)
def test_a_pod_of_the_webhook_of_before_is_not_served_where_the_runtime_does_not_tell(
    injector: str, lack: Lack
) -> None:
    assert by_node(of_the_webhook(), report(injector=injector)) == Absence(lack, by_webhook=True)
    assert diagnose(of_the_webhook(), report(injector=injector), Means(), ASKED, BEFORE, NOW) is None, "nor is it asked"


@pytest.mark.parametrize("outcomes", [(), ("Before",), ("Unsuited",)])
def test_a_pod_of_the_webhook_of_before_lacks_nothing_where_the_runtime_tells(outcomes: tuple[str, ...]) -> None:
    assert by_node(of_the_webhook(), report(*outcomes)) is None
    assert by_node(of_the_webhook(started=None), report(injector=INJECTOR_UNTOLD)) is None, "nor before it runs"


@pytest.mark.parametrize("started", [None, "2026-01-01T00:02:55Z"], ids=["not yet", "just now"])
def test_a_container_that_its_node_may_not_have_told_of_yet_is_waited_for(started: str | None) -> None:
    assert by_node(pod(started=started), report()) is None
    assert by_node(pod(started=started), report("Late")) == Absence(Lack.LATE), "as soon as it has"


def test_a_node_without_a_report_tells_nothing_of_its_pods() -> None:
    """Why there is none is told by the agents."""
    assert by_node(pod(), None) is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (pod(os={"name": "windows"}), Absence(Lack.UNSUITED, "its system is windows")),
        (pod(container(resources={})), Absence(Lack.NO_GPU, "no container asks for one")),
        (pod(container(resources={"limits": {"cpu": "1"}})), Absence(Lack.NO_GPU, "no container asks for one")),
    ],
)
def test_a_pod_that_no_injector_is_asked_about_needs_no_report(body: dict[str, Any], found: Absence) -> None:
    assert by_node(body, None) == found


@pytest.mark.parametrize("resources", [{"claims": [{"name": "gpu"}]}, {"limits": {"site.example/gpu": 1}}])
def test_what_the_kubelet_calls_a_gpu_is_not_judged_by_its_name(resources: dict[str, Any]) -> None:
    assert by_node(pod(container(resources=resources)), report("Injected")) is None
    assert by_node(pod(container(resources=resources)), report()) == Absence(Lack.MISSED)
