"""The agent's HTTP servers alone."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from joulepath_agent.server import serve_health, serve_metrics
from joulepath_crds.serving.pages import PageServer


def get(server: PageServer, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60) as answer:
        return bytes(answer.read())


def test_it_serves_where_dns_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a name was looked up")

    for lookup in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, lookup, asked)
    server = serve_health("127.0.0.1", 0, lambda: True, lambda: True)
    try:
        assert get(server, "/healthz") == b"ok\n"
    finally:
        server.close()


class Slow(Collector):
    """Counts how often it is asked; waits to be let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.asked += 1
        self.go.wait(60)
        yield GaugeMetricFamily("a_gauge", "a gauge", value=1)


def test_health_waits_for_no_metrics_and_many_who_ask_for_metrics_have_them_made_once() -> None:
    slow, registry = Slow(), CollectorRegistry()
    registry.register(slow)
    slow.asked = 0
    metrics, health = serve_metrics("127.0.0.1", 0, registry), serve_health("127.0.0.1", 0, lambda: True, lambda: True)
    try:
        clients = [socket.create_connection(("127.0.0.1", metrics.port), timeout=60) for _ in range(10)]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert get(health, "/readyz") == b"ok\n"
        slow.go.set()
        for client in clients:
            with client, client.makefile("rb") as answer:
                assert b"a_gauge 1.0" in answer.read()
        assert slow.asked < 10
    finally:
        metrics.close()
        health.close()
