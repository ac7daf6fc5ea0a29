"""What operator and webhook load, once they have started: each only what it runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PLANNER = {"joulepath_planner", "numpy", "scipy", "highspy"}
LONG_S = 240
START = """
import json, os, ssl, sys, threading, time, urllib.request

def tell() -> None:
    while True:
        try:
            urllib.request.urlopen(sys.argv[1], context=ssl._create_unverified_context()).close()
        except OSError:
            time.sleep(0.05)
        else:
            break
    print(json.dumps(sorted(sys.modules)), flush=True)
    os._exit(0)

threading.Thread(target=tell).start()
from joulepath_operator.__main__ import main
main(sys.argv[2:])
"""


class _Handler(BaseHTTPRequestHandler):
    """An API server that has just started: it knows no kind yet, and forbids one."""

    def do_GET(self) -> None:
        self.send_response(403 if "/energypolicies" in self.path else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        config: dict[str, Any] = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        yield {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
        server.shutdown()


def loaded(environment: dict[str, str], health: str, *arguments: str) -> set[str]:
    """The modules of `joulepath-operator ARGUMENTS` once it says that it is healthy."""
    told = subprocess.run(
        [sys.executable, "-c", START, health, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        timeout=LONG_S,
    )
    return set(json.loads(told.stdout))


def test_the_operator_leaves_the_planner_to_its_own_process(environment: dict[str, str]) -> None:
    port = _free_port()
    options = ("--metrics-host", "127.0.0.1", "--metrics-port", str(_free_port()), "--health-port", str(port))
    modules = loaded(environment, f"http://127.0.0.1:{port}/healthz", "run", *options)
    assert {"kopf", "kubernetes"} <= modules
    assert not PLANNER & modules


def test_the_webhook_loads_neither_planner_nor_kopf(environment: dict[str, str], tmp_path: Path) -> None:
    port, certificate, key = _free_port(), tmp_path / "tls.crt", tmp_path / "tls.key"
    key_type = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", *key_type, "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    modules = loaded(
        environment,
        f"http://127.0.0.1:{port}/healthz",
        "webhook",
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        "--host=127.0.0.1",
        f"--port={_free_port()}",
        f"--health-port={port}",
    )
    assert "kubernetes" in modules
    assert not (PLANNER | {"kopf", "prometheus_client"}) & modules


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
