"""The HTTP server alone."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from joulepath_agent.server import serve


def test_it_serves_where_dns_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a name was looked up")

    for lookup in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, lookup, asked)
    server = serve("127.0.0.1", 0, CollectorRegistry(), lambda: True, lambda: True)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/healthz", timeout=60) as answer:
            assert answer.status == 200
    finally:
        server.shutdown()
        server.server_close()
