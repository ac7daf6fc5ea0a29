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

from joulepath_agent.__main__ import main
from tests.agent.room import wait_until
from virtual_gpus.build import library_dir
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


def metrics(port: int) -> str:
    """What Prometheus would be told."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def answers(port: int) -> bool:
    """Whether there is a server at the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ready(port: int) -> bool:
    """Whether the agent says that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.URLError:
        return False


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


def test_a_node_without_gpus_or_api_server_is_served_idle_until_a_driver_comes(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus, tmp_path: Path
) -> None:
    gpus, port = make_virtual_gpus(), free_port()
    (tmp_path / "lib").mkdir()
    environment = {**gpus.environment, "LD_LIBRARY_PATH": str(tmp_path / "lib")}
    process = start(environment, "--metrics-port", str(port), "--look-for-gpus", "0.2")
    wait_until(lambda: ready(port), "it is ready")
    assert 'joulepath_gpus{Hostname="a"} 0.0' in metrics(port)
    assert not (tmp_path / "agent.sock").exists(), "a rank that comes isn't kept waiting"
    for library in library_dir().iterdir():
        (tmp_path / "lib" / library.name).symlink_to(library)
    wait_until((tmp_path / "agent.sock").exists, "ranks are served")
    wait_until(lambda: ready(port), "it is ready")
    wait_until(lambda: 'joulepath_gpus{Hostname="a"} 4.0' in metrics(port), "the GPUs are counted")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.count("this node has no GPUs") == 1


def test_without_nvml_a_gpu_that_may_be_locked_is_reset_as_soon_as_it_can_be(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus, tmp_path: Path
) -> None:
    gpus, port, journal = make_virtual_gpus(), free_port(), tmp_path / "state" / "locked-gpus"
    for folder in ("lib", "state"):
        (tmp_path / folder).mkdir()
    journal.write_text(f"{gpus.uuids[0]}\n")
    environment = {**gpus.environment, "LD_LIBRARY_PATH": str(tmp_path / "lib")}
    start(environment, "--metrics-port", str(port), "--look-for-gpus", "0.2")
    wait_until(lambda: answers(port), "it serves")
    assert not ready(port)
    for library in library_dir().iterdir():
        (tmp_path / "lib" / library.name).symlink_to(library)
    wait_until(lambda: ready(port), "it is ready")
    wait_until(lambda: journal.read_text() == "", "the journal is empty")
    assert gpus.look(0).resets == 1


def test_a_gpu_that_cannot_be_read_at_the_start_is_looked_for_again(
    start: Callable[..., subprocess.Popen[str]], make_virtual_gpus: MakeVirtualGpus
) -> None:
    gpus, port = make_virtual_gpus(), free_port()
    gpus.break_gpu(3, lost=True)
    process = start(gpus.environment, "--metrics-port", str(port), "--look-for-gpus", "0.2")
    wait_until(lambda: answers(port) and 'joulepath_gpus{Hostname="a"} 3.0' in metrics(port), "three are there")
    gpus.break_gpu(3)
    wait_until(lambda: 'joulepath_gpus{Hostname="a"} 4.0' in metrics(port), "all are there")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert said.count("this GPU is left alone until it can be read") == 1


@pytest.mark.parametrize("text", ["1410", "a,b", "900,600", "0,600"])
def test_site_clocks_that_make_no_sense_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--node-name", "a", "--site-clocks", text])
    assert refused.value.code == 2
    assert "argument --site-clocks: site clocks must be" in capsys.readouterr().err
