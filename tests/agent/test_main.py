"""The command: what it says, how it starts without an API server, how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.room import wait_until
from virtual_gpus.fixtures import MakeVirtualGpus, VirtualGpus

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: nobody, user: {}}]
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Factory: starts the command on virtual GPUs, with an API server that isn't there."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    started: list[subprocess.Popen[str]] = []

    def begin(environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "joulepath_agent", "--node-name", "a", "--metrics-address", "127.0.0.1"]
        command += ["--proc", "/proc", "--socket", str(tmp_path / "agent.sock"), "--state-dir", str(tmp_path / "state")]
        environment = {**environment, "KUBECONFIG": str(tmp_path / "kubeconfig")}
        process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ready(port: int) -> bool:
    """Whether the agent says that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.URLError:
        return False


def test_without_an_api_server_it_serves_and_ends_with_0(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus
) -> None:
    port = free_port()
    process = start(make_virtual_gpus().environment, "--metrics-port", str(port))
    wait_until(lambda: ready(port), "it is ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_reset_restores_the_clocks_that_the_site_declared(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus, tmp_path: Path
) -> None:
    gpus: VirtualGpus = make_virtual_gpus()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "locked-gpus").write_text(f"{gpus.uuids[0]}\nGPU-of-another-day\n")
    start({**gpus.environment, "JOULEPATH_SITE_CLOCKS": "210,1200"}, "--metrics-port", str(free_port()))
    wait_until(lambda: gpus.look(0).next_high_mhz == 1200, "the site's clocks are back")
    assert gpus.look(0).next_low_mhz == 210
    left = "GPU-of-another-day\n"
    wait_until(lambda: (tmp_path / "state" / "locked-gpus").read_text() == left, "only the absent GPU is left")
    assert gpus.look(1).sets == gpus.look(1).resets == 0


def test_without_nvml_it_says_what_is_missing(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus
) -> None:
    environment = {**make_virtual_gpus().environment, "LD_LIBRARY_PATH": ""}
    process = start(environment)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is this a GPU node, with the NVIDIA runtime class?" in said


@pytest.mark.parametrize("text", ["1410", "a,b", "900,600", "0,600"])
def test_site_clocks_that_make_no_sense_are_refused(
    text: str, start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus
) -> None:
    process = start(make_virtual_gpus().environment, "--site-clocks", text)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "argument --site-clocks: site clocks must be" in said
