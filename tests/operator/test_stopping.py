"""What the operator reads and writes to stop injection, and that it costs it nothing where nothing fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from prometheus_client import generate_latest

from joulepath_crds import JobName
from joulepath_operator.control.api import Api
from joulepath_operator.control.stopping import Stopping
from joulepath_operator.facts.admission import Denial, Stop
from joulepath_operator.metrics import Metrics
from tests.operator.test_breaker import HOLDS, MISSING, at, passed, pod


class Cluster:
    """The few calls of the API that are made here."""

    def __init__(self) -> None:
        self.written: dict[str, Stop] = {}
        self.pods: list[dict[str, Any]] = []
        self.denied: list[Denial] = []
        self.denied_at = ("PyTorchJob", "FailedCreatePod")
        self.asked: list[tuple[str, bool]] = []
        self.labelled = ["team"]
        self.writes = 0

    def stops(self) -> dict[str, Stop]:
        return dict(self.written)

    def write_stops(self, changed: dict[str, Stop | None]) -> None:
        self.writes += 1
        for namespace, stop in changed.items():
            self.written.pop(namespace, None)
            if stop is not None:
                self.written[namespace] = stop

    def agent(self, node: str) -> tuple[str | None, bool]:
        return None, True

    def injecting_namespaces(self) -> list[str]:
        return self.labelled

    def job_pods(self, selector: str, namespace: str, *, running: bool) -> Iterator[dict[str, Any]]:
        if selector != "training.kubeflow.org/job-name":
            assert selector == "batch.kubernetes.io/job-name"
            return iter(())
        self.asked.append((namespace, running))
        return (one for one in self.pods if one["metadata"]["namespace"] == namespace)

    def denials(self, namespace: str, kind: str, reason: str) -> Iterator[Denial]:
        return iter(self.denied if (kind, reason) == self.denied_at else ())

    def has(self, state: dict[str, Any], namespace: str = "team", **fields: Any) -> None:
        made = pod(state, **fields)
        made["metadata"]["namespace"] = namespace
        self.pods = [made]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def stopping(cluster: Cluster) -> Stopping:
    return Stopping(cluster)  # type: ignore[arg-type]


def test_where_nothing_fails_one_list_a_labelled_namespace_is_all_and_nothing_is_written(
    cluster: Cluster, stopping: Stopping
) -> None:
    cluster.has({"waiting": {"reason": "PodInitializing"}})
    assert stopping.look(at(60)) == []
    assert (cluster.asked, cluster.writes) == ([("team", False)], 0)
    cluster.written["team"] = HOLDS
    stopping.look(at(60))
    assert cluster.asked[1:] == [("team", True)], "some may have passed and run"


def test_pods_of_a_namespace_that_asks_for_no_injection_are_not_read(cluster: Cluster, stopping: Stopping) -> None:
    cluster.has(MISSING, namespace="another")
    assert stopping.look(at(60)) == []
    assert cluster.asked == [("team", False)]


def test_a_failure_is_written_once_for_its_namespace_and_told_by_the_metrics(
    cluster: Cluster, stopping: Stopping
) -> None:
    metrics = Metrics(stopped=stopping.holding)
    cluster.has(MISSING)
    assert stopping.look(at(60)) == ["team"]
    assert stopping.look(at(61)) == []
    assert (list(cluster.written), cluster.writes) == (["team"], 1)
    assert 'joulepath_injection_stopped{namespace="team"} 1.0' in generate_latest(metrics.registry).decode()
    cluster.has(passed(65), restarts=1)
    assert stopping.look(at(66)) == ["team"]
    assert not cluster.written["team"].holds
    assert stopping.known == cluster.written
    assert 'namespace="team"' not in generate_latest(metrics.registry).decode()


def test_refused_pods_count_if_they_are_of_a_job_that_asks_for_a_plan(cluster: Cluster) -> None:
    cluster.denied = [Denial("gpt3", at(60), 'pods "gpt3-master-0" is forbidden: no hostPath')]
    asked: list[tuple[str, str]] = []

    def is_annotated(namespace: str, job: JobName) -> bool:
        asked.append((namespace, str(job)))
        return len(asked) > 1

    stopping = Stopping(cluster, is_annotated)  # type: ignore[arg-type]
    assert stopping.look(at(60)) == []
    assert stopping.look(at(60)) == ["team"]
    assert cluster.written["team"].denied
    assert asked == [("team", "PyTorchJob gpt3")] * 2


def test_pods_of_a_job_that_are_refused_stop_injection_too(cluster: Cluster, stopping: Stopping) -> None:
    cluster.denied_at = ("Job", "FailedCreate")
    cluster.denied = [Denial("set-0", at(60), 'pods "set-0-0-x" is forbidden: no hostPath')]
    assert stopping.look(at(60)) == ["team"]


def test_what_was_refused_before_somebody_took_the_stop_out_does_not_stop_it_again(
    cluster: Cluster, stopping: Stopping
) -> None:
    cluster.denied = [Denial("gpt3", at(60), "no hostPath")]
    stopping.look(at(60))
    cluster.written.clear()
    stopping.look(at(62))
    assert stopping.holding() == []
    cluster.denied = [Denial("gpt3", at(63), "no hostPath")]
    stopping.look(at(63))
    assert stopping.holding() == ["team"]


def test_what_refuses_pods_is_read_from_the_events_of_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    said = 'pods "gpt3-master-0" is forbidden: no hostPath'
    event = {
        "metadata": {"creationTimestamp": at(1)},
        "involvedObject": {"kind": "PyTorchJob", "name": "gpt3", "uid": "u"},
        "lastTimestamp": at(2),
        "message": f"Error creating: {said}",
    }
    never_again = {**event, "lastTimestamp": None, "message": "x" * 10**6}

    def list_events(self: object, namespace: str, **arguments: Any) -> SimpleNamespace:
        asked.append(arguments["field_selector"])
        return SimpleNamespace(data=json.dumps({"metadata": {}, "items": [event, never_again]}))

    monkeypatch.setattr(client.CoreV1Api, "list_namespaced_event", list_events)
    api = Api(client.ApiClient())
    newest, cut = Denial("gpt3", at(2), said, "u"), Denial("gpt3", at(1), "x" * 1024, "u")
    assert [*api.denials("team", "PyTorchJob", "FailedCreatePod")] == [newest, cut]
    assert asked == ["reason=FailedCreatePod,involvedObject.kind=PyTorchJob"]


def test_another_operator_goes_on_from_what_is_written_and_whoever_takes_it_out_has_it_his_way(
    cluster: Cluster, stopping: Stopping
) -> None:
    cluster.has(MISSING)
    stopping.look(at(60))
    cluster.pods = []
    another = Stopping(cluster)  # type: ignore[arg-type]
    assert another.look(at(61)) == []
    assert another.holding() == ["team"]
    cluster.written.clear()
    another.look(at(62))
    assert another.holding() == []


def test_what_cannot_be_written_is_tried_again(
    cluster: Cluster, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(changed: object) -> None:
        raise ApiException(404)

    cluster.has(MISSING)
    with monkeypatch.context() as while_refused:
        while_refused.setattr(cluster, "write_stops", refuse)
        with pytest.raises(ApiException):
            stopping.look(at(60))
    assert stopping.look(at(61)) == ["team"]


def test_what_was_decided_and_cannot_be_written_is_known_all_the_same(
    cluster: Cluster, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(changed: object) -> None:
        raise ApiException(413)

    cluster.has(MISSING)
    monkeypatch.setattr(cluster, "write_stops", refuse)
    for minute in (60, 71):
        with pytest.raises(ApiException):
            stopping.look(at(minute))
    assert stopping.known["team"].since == at(60)
    assert stopping.known["team"].pause_s == 1200, "it goes on from what it had decided"


def test_more_stops_than_a_configmap_has_room_for_harm_none_that_holds(cluster: Cluster, stopping: Stopping) -> None:
    cluster.written = {f"over-{index}": replace(HOLDS, over_at=at(59)) for index in range(2000)}
    cluster.has(MISSING)
    changed = stopping.look(at(60))
    assert cluster.written["team"].holds
    assert len(cluster.written) == 600
    assert len(changed) == 1 + 2000 - 599
    longest = replace(HOLDS, why="\1" * 160, node="n" * 253).written()
    assert 600 * (len(longest.encode()) + 63) < 2**20


def test_pods_are_read_page_by_page_and_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """At resourceVersion 0 the API server would send all at once, whatever the limit."""
    asked: list[dict[str, Any]] = []

    def list_pods(self: object, namespace: str, **arguments: Any) -> SimpleNamespace:
        asked.append(arguments)
        page = len(asked)
        items = [{"metadata": {"name": f"p{page}"}}]
        return SimpleNamespace(data=json.dumps({"metadata": {"continue": "more" if page < 3 else ""}, "items": items}))

    monkeypatch.setattr(client.CoreV1Api, "list_namespaced_pod", list_pods)
    pods = Api(client.ApiClient()).job_pods("job", "team", running=False)
    assert next(pods)["metadata"]["name"] == "p1"
    assert len(asked) == 1, "the next page is asked for once this one is looked at"
    assert [one["metadata"]["name"] for one in pods] == ["p2", "p3"]
    assert [one["_continue"] for one in asked] == [None, "more", "more"]
    assert all(one["limit"] <= 100 and "resource_version" not in one for one in asked)
    assert {one["field_selector"] for one in asked} == {"status.phase!=Running,status.phase!=Succeeded"}
