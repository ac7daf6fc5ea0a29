"""The Kubernetes API as the operator asks it, against a server that knows no kind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from kubernetes import client

from joulepath_operator.cluster import Cluster
from joulepath_operator.index import Kind


class _KnowsNothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def empty() -> Iterator[Cluster]:
    with HTTPServer(("127.0.0.1", 0), _KnowsNothing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        yield Cluster(client.ApiClient(configuration))
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(Kind.ENERGY_PLAN, "kubectl apply -f crds/"), (Kind.JOB, "install the Kubeflow training-operator")],
)
def test_a_kind_that_the_cluster_does_not_know_is_told_with_the_remedy(
    empty: Cluster, caplog: pytest.LogCaptureFixture, kind: Kind, remedy: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert empty.list_all(kind) == []
    assert kind.value in caplog.text
    assert remedy in caplog.text
