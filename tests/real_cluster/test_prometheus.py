"""The Prometheus for tests is a real one: it scrapes what it is told to, and ends when it is told to."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from real_cluster import Cluster, NotYetError, prometheus, until

pytestmark = pytest.mark.cluster


class _Joules(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"joules_total 42\n")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output free of requests."""


@pytest.fixture
def target() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Joules) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_prometheus_scrapes_a_target_and_ends_with_its_block(cluster: Cluster, target: str) -> None:
    job = {"job_name": "probe", "static_configs": [{"targets": [target]}]}
    configuration = yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})

    def scraped() -> None:
        with urllib.request.urlopen(f"{url}/api/v1/query?query=joules_total", timeout=5) as answer:
            series = json.load(answer)["data"]["result"]
        if [each["value"][1] for each in series] != ["42"]:
            raise NotYetError(f"joules_total is {series}")

    with prometheus(configuration) as url:
        until("the first scrape", 30, scraped)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)
