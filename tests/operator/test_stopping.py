"""What the operator reads and writes to stop injection, and that it costs it nothing where nothing fails."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from prometheus_client import generate_latest

from joulepath_operator.control.stopping import Stopping
from joulepath_operator.facts.admission import Stop
from joulepath_operator.metrics import Metrics
from tests.operator.test_breaker import MISSING, at, passed, pod


class Cluster:
    """The few calls of the API that are made here."""

    def __init__(self) -> None:
        self.written: dict[str, Stop] = {}
        self.pods: list[dict[str, Any]] = []
        self.asked: list[str | None] = []
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

    def job_pods(self, selector: str, namespace: str | None = None) -> list[dict[str, Any]]:
        assert selector == "training.kubeflow.org/job-name"
        self.asked.append(namespace)
        return [one for one in self.pods if namespace in (None, one["metadata"]["namespace"])]

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


def test_where_nothing_fails_one_list_is_all_and_nothing_is_written(cluster: Cluster, stopping: Stopping) -> None:
    cluster.has({"waiting": {"reason": "PodInitializing"}})
    assert stopping.look(at(60)) == []
    assert (cluster.asked, cluster.writes) == ([None], 0)


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
