"""The commands of agent and clocks: what they say, how they start without an API server, how they end."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from joulepath_clocks.__main__ import main as clocks_main
from joulepath_warden.journal import EVERY_GPU, Journal
from tests.agent.room import PATIENCE_S, Launcher, Process, wait_until
from virtual_gpus.build import library_dir
from virtual_gpus.fixtures import MakeVirtualGpus, run_program

NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Started:
    """A command as it runs; what it says goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def port(self, what: str = "metrics") -> int:
        """The port of its metrics or its health, once they are served."""
        found = re.compile(rf"{what} at port (\d+)")
        wait_until(lambda: found.search(self.log.read_text()) is not None, "it serves")
        return int(found.findall(self.log.read_text())[0])

    def end(self) -> str:
        """What it has said, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        return self.log.read_text()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Factory: starts a command on virtual GPUs."""
    started: list[Started] = []

    def make(program: str, environment: dict[str, str], *options: str) -> Started:
        command = [sys.executable, "-m", program, "--look-for-gpus", "0.2", "--state-dir", str(tmp_path / "state")]
        log = tmp_path / f"{program}.log"
        environment = {**environment, "PYTHONFAULTHANDLER": "1"}
        with log.open("wb") as stderr:
            started.append(Started(subprocess.Popen([*command, *options], env=environment, stderr=stderr), log))
        return started[-1]

    yield make
    for one in started:
        one.process.send_signal(signal.SIGABRT)  # one that hangs tells where
        one.process.wait()
        print(one.log.read_text(), file=sys.stderr)


@pytest.fixture
def start_clocks(begin: Callable[..., Started], tmp_path: Path) -> Callable[[dict[str, str]], Started]:
    """Factory: starts the node's clocks."""
    return lambda environment: begin(
        "joulepath_clocks", environment, "--proc", "/proc", "--socket", str(tmp_path / "agent.sock")
    )


@pytest.fixture
def start(begin: Callable[..., Started], tmp_path: Path) -> Callable[..., Started]:
    """Factory: starts the agent, with an API server that isn't there."""
    ports = ("--metrics-address", "127.0.0.1", "--metrics-port", "0", "--health-port", "0")
    return lambda environment, *options: begin(
        "joulepath_agent",
        {"JOULEPATH_API_SERVER": NOWHERE, **environment},
        *("--node-name", "a", *ports, *options),
    )


@pytest.fixture
def start_warden(launcher: Launcher, tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Process]]:
    """Factory: starts the node's warden."""
    with ExitStack() as stack:

        def begin(environment: dict[str, str]) -> Process:
            arguments = ["--state-dir", str(tmp_path / "state")]
            warden = Process(launcher, "joulepath_warden.__main__", arguments, environment)
            stack.callback(warden.end)
            return warden

        yield begin


def metrics(port: int) -> str:
    """What Prometheus would be told."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def ready(agent: Started) -> bool:
    """Whether the agent says that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.port('health')}/readyz", timeout=PATIENCE_S):
            return True
    except urllib.error.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["credentials", "socket"])
def test_what_keeps_an_agent_or_clocks_from_starting_keeps_no_clock_locked(
    start: Callable[..., Started],
    start_clocks: Callable[..., Started],
    start_warden: Callable[..., Process],
    make_virtual_gpus: MakeVirtualGpus,
    tmp_path: Path,
    broken: str,
) -> None:
    gpus = make_virtual_gpus()
    (tmp_path / "state").mkdir()
    journal = Journal(tmp_path / "state")
    journal.remove(EVERY_GPU)
    journal.add(gpus.uuids[0])
    assert run_program(gpus, "set_clock_error", gpu=0)["error"] == 0
    if broken == "credentials":
        ended = start({**gpus.environment, "JOULEPATH_API_SERVER": "", "JOULEPATH_CREDENTIALS": str(tmp_path)})
    else:
        (tmp_path / "agent.sock").mkdir()
        ended = start_clocks(gpus.environment)
    assert ended.process.wait(PATIENCE_S) == 1
    assert gpus.look(0).next_high_mhz == 900
    start_warden(gpus.environment)
    wait_until(lambda: gpus.look(0).next_high_mhz == 0, "the clock is reset")


def test_a_node_without_gpus_or_api_server_is_served_idle_until_a_driver_comes(
    start: Callable[..., Started],
    start_clocks: Callable[..., Started],
    start_warden: Callable[..., Process],
    make_virtual_gpus: MakeVirtualGpus,
    tmp_path: Path,
) -> None:
    gpus = make_virtual_gpus()
    start_warden(gpus.environment)
    (tmp_path / "lib").mkdir()
    environment = {**gpus.environment, "LD_LIBRARY_PATH": str(tmp_path / "lib")}
    clocks, agent = start_clocks(environment), start(environment)
    port = agent.port()
    wait_until(lambda: ready(agent), "it is ready")
    assert 'joulepath_gpus{hostname="a"} 0.0' in metrics(port)
    assert not (tmp_path / "agent.sock").exists(), "a rank that comes isn't kept waiting"
    for library in library_dir().iterdir():
        (tmp_path / "lib" / library.name).symlink_to(library)
    wait_until((tmp_path / "agent.sock").exists, "ranks are served")
    wait_until(lambda: ready(agent), "it is ready")
    wait_until(lambda: 'joulepath_gpus{hostname="a"} 4.0' in metrics(port), "the GPUs are counted")
    for one in (agent, clocks):
        assert one.end().count("this node has no GPUs") == 1
        assert one.process.returncode == 0


@pytest.mark.slow
def test_without_nvml_a_gpu_that_may_be_locked_is_trouble_and_without_a_warden_nothing_is_well(
    start: Callable[..., Started],
    start_clocks: Callable[..., Started],
    start_warden: Callable[..., Process],
    make_virtual_gpus: MakeVirtualGpus,
    tmp_path: Path,
) -> None:
    gpus, empty = make_virtual_gpus(), {"LD_LIBRARY_PATH": str(tmp_path)}
    (tmp_path / "state").mkdir()
    journal = Journal(tmp_path / "state")
    journal.remove(EVERY_GPU)
    journal.add(gpus.uuids[0])
    agent = start({**gpus.environment, **empty})
    assert not ready(agent), "without clocks"
    clocks = start_clocks({**gpus.environment, **empty})
    wait_until(lambda: "no warden answers" in clocks.log.read_text(), "the clocks are there")
    assert not ready(agent)
    assert 'joulepath_warden_up{hostname="a"} 0.0' in metrics(agent.port())
    gpus.break_gpu(0, set_error=999)
    start_warden(gpus.environment)
    wait_until(lambda: 'joulepath_warden_up{hostname="a"} 1.0' in metrics(agent.port()), "the warden is there")
    wait_until(lambda: "may still be locked" in clocks.log.read_text(), "it says what may be locked")
    assert not ready(agent)
    gpus.break_gpu(0)
    wait_until(lambda: ready(agent), "it is ready")


@pytest.mark.slow
def test_a_gpu_that_cannot_be_read_at_the_start_is_looked_for_again(
    start: Callable[..., Started], start_clocks: Callable[..., Started], make_virtual_gpus: MakeVirtualGpus
) -> None:
    gpus = make_virtual_gpus()
    gpus.break_gpu(3, lost=True)
    clocks, agent = start_clocks(gpus.environment), start(gpus.environment)
    port = agent.port()
    wait_until(lambda: 'joulepath_gpus{hostname="a"} 3.0' in metrics(port), "three are there")
    gpus.break_gpu(3)
    wait_until(lambda: 'joulepath_gpus{hostname="a"} 4.0' in metrics(port), "all are there")
    assert clocks.end().count("this GPU is left alone until it can be read") == 1


def test_a_reset_by_hand_is_the_wardens(make_virtual_gpus: MakeVirtualGpus, tmp_path: Path) -> None:
    gpus = make_virtual_gpus()
    assert run_program(gpus, "set_clock_error", gpu=0)["error"] == 0
    assert gpus.look(0).next_high_mhz == 900
    command = [sys.executable, "-m", "joulepath_agent", "reset", "--state-dir", str(tmp_path)]
    done = subprocess.run(command, env=gpus.environment, stderr=subprocess.PIPE, text=True, check=True)
    assert f"at default clocks: {gpus.uuids[0]}" in done.stderr
    assert gpus.look(0).next_high_mhz == 0
    assert Journal(tmp_path).entries == frozenset()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("--silence-limit", text) for text in ("0", "nan", "inf", "86400", "soon")),
        *(("--plan-time-to-live", text) for text in ("0", "59", "nan", "inf", "86401", "soon")),
        *(("--max-slowdown", text) for text in ("-1", "51", "nan", "none")),
    ],
)
def test_a_limit_that_is_none_is_refused(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        clocks_main([option, text])
    assert refused.value.code == 2
    assert f"argument {option}:" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1410", "a,b", "900,600", "0,600"])
def test_site_clocks_that_make_no_sense_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        clocks_main(["--site-clocks", text])
    assert refused.value.code == 2
    assert "argument --site-clocks: site clocks must be" in capsys.readouterr().err


@pytest.mark.slow
def test_metrics_by_https_are_for_nobody_while_the_api_server_is_away(
    start: Callable[..., Started], make_virtual_gpus: MakeVirtualGpus, tmp_path: Path
) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=metrics"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.crt")]
    subprocess.run(command, check=True, capture_output=True)
    agent = start(make_virtual_gpus().environment, "--metrics-tls", str(tmp_path))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    for token, status in (("", 401), ("any", 503)):
        asked = urllib.request.Request(f"https://127.0.0.1:{agent.port()}/metrics")
        asked.add_header("Authorization", f"Bearer {token}")
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(asked, timeout=PATIENCE_S, context=trusting)
        told.value.close()
        assert told.value.code == status
