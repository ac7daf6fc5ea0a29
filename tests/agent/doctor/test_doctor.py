"""The doctor as a process on virtual GPUs, beside a real warden: what it finds, and that it leaves default clocks."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from joulepath_agent.__main__ import main
from joulepath_agent.doctor.figures import Examined
from joulepath_agent.doctor.record import Record
from joulepath_agent.doctor.table import WIDTH
from tests.agent.room import PATIENCE_S, Room, wait_until
from virtual_gpus import model
from virtual_gpus.fixtures import VirtualGpus
from virtual_gpus.state import HangingCall

SCALE = 0.1
LAG_S = SCALE * 0.01
NVML_ERROR_NO_PERMISSION = 4
SECONDS = {"F": 0.05, "B": 0.1, "I": 0.05, "W": 0.05, "K": 0.0002}
MakeRoom = Callable[..., Room]


@dataclass(frozen=True, slots=True)
class Running:
    """A doctor, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path
    room: Room

    def end(self) -> tuple[int, str]:
        """Its exit status and all that it said."""
        return self.process.wait(PATIENCE_S), self.log.read_text()

    def locks(self) -> None:
        """Waits until it has locked clocks several times, and holds one."""
        wait_until(lambda: self.room.gpus.look(0).sets > 5 and self.room.clock() > 0, "it holds a clock")

    def is_gone(self) -> None:
        """Waits until nothing of it is left: no lock, no entry in the journal, no load."""
        wait_until(lambda: self.room.clock() == 0, "the clock is reset")
        wait_until(lambda: self.room.named() == [], "the journal names nothing")
        wait_until(lambda: self.room.gpus.look(0).owners == 0, "the load has ended")


@pytest.fixture
def clinic(room: MakeRoom) -> Callable[..., Room]:
    """Factory of a node with one idle GPU and a warden."""

    def make(warden: bool = True, **spec: Any) -> Room:
        made = room(model.parametric({"seconds": SECONDS, **spec}), gpus=1, time_scale=SCALE, power_variation=0.0)
        if warden:
            made.warden()
        else:
            made.state_dir.mkdir()
        return made

    return make


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Factory: starts a doctor, by default with a load and a tenth of the usual time."""
    started: list[Running] = []

    def start(made: Room, *options: str, load: str | None = None, pace: float = 0.1) -> Running:
        command = [sys.executable, "-m", "joulepath_agent.doctor", "--state-dir", str(made.state_dir)]
        command += ["--load", load or f"{shlex.quote(sys.executable)} -m virtual_gpus.load", "--pace", str(pace)]
        log = tmp_path / "doctor.log"
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=made.gpus.environment)
        started.append(Running(process, log, made))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        print(one.log.read_text(), file=sys.stderr)


def busy(gpus: VirtualGpus) -> subprocess.Popen[bytes]:
    """A process that computes on GPU 0."""
    command = [sys.executable, "-m", "virtual_gpus.programs", "run_until_killed", "{}"]
    process = subprocess.Popen(command, env=gpus.environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def examined(made: Room) -> Examined:
    """What the record has of the one GPU."""
    record = Record.read(made.state_dir)
    assert record is not None
    (found,) = record.gpus
    return found


def unhindered(made: Room, start: Callable[..., Running]) -> tuple[Running, int, str]:
    """An examination to its end, its exit status and what it says; once more where the warden has revoked its clocks:
    on a busy machine beats come late."""
    for _ in range(5):
        running = start(made)
        status, said = running.end()
        if not any("the warden has revoked it" in why for why in examined(made).without.values()):
            return running, status, said
    pytest.fail(f"beats were late again and again: {said}")


def test_it_finds_what_a_capped_gpu_has_and_tells_it(
    clinic: Callable[..., Room], doctor: Callable[..., Running]
) -> None:
    made = clinic(power_cap_w=300.0)
    running, status, said = unhindered(made, doctor)
    assert status == 0
    running.is_gone()
    assert max(map(len, said.partition("\n\n")[0].splitlines())) <= WIDTH
    assert "doesn't reach 1410 MHz, held back by: power cap" in said.replace("\n    ", " ")
    found, gpu = examined(made), made.gpus.model
    assert found.without.keys() == {"collectives"}
    assert found.permission is not None
    assert found.permission.can_set
    assert found.settled is not None
    held = found.settled.clock_mhz
    assert 1200 < held < 1350
    assert found.settled.slowed_by == ("power cap",)
    assert found.settled.limit_w == 300.0
    assert found.counter is not None
    assert found.counter.period_s.median == pytest.approx(SCALE * 0.1, rel=0.25)
    for up in (True, False):
        lags = found.lags_s(up=up)
        assert len(lags) >= 5
        assert median(lags) > 0.6 * LAG_S, "one look may be told of late"
    to_default = [pair for pair in found.pairs if pair.to_mhz == 0 and pair.lags_s]
    assert to_default, "lags to a clock that is never reached are lags to where it settles"
    assert all(abs(pair.settled_mhz - held) <= 2 * gpu.clocks.step_mhz for pair in to_default)
    assert len(found.waiting) == 5
    for waits in found.waiting:
        at = gpu.clocks.all_mhz.index(waits.clock_mhz or gpu.clocks.max_mhz)
        assert waits.power_w == pytest.approx(gpu.blocking_w[at], rel=0.25)
    assert found.page is not None
    assert found.page.seen > 0
    assert found.page.ordered
    assert found.markers is not None
    assert found.killed is not None


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_it_leaves_default_clocks_and_no_record_when_it_is_ended(
    clinic: Callable[..., Room], doctor: Callable[..., Running], sent: signal.Signals
) -> None:
    made = clinic()
    running = doctor(made, pace=0.3)
    running.locks()
    running.process.send_signal(sent)
    status, said = running.end()
    running.is_gone()
    assert status == (1 if sent is signal.SIGTERM else -sent)
    assert ("it was told to stop" in said) == (sent is signal.SIGTERM)
    assert Record.read(made.state_dir) is None


def test_the_process_that_is_to_be_killed_does_not_outlive_the_doctor(clinic: Callable[..., Room]) -> None:
    made = clinic()
    command = [sys.executable, "-m", "joulepath_agent.doctor.victim", str(made.state_dir), made.gpus.uuids[0], "900"]
    victim = subprocess.Popen(command, env=made.gpus.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"locked\n"
    assert made.clock() == 900
    victim.communicate()  # ends its input, as the doctor's death does
    wait_until(lambda: made.clock() == 0, "the clock is reset")


def test_a_gpu_on_which_somebody_computes_is_left_alone(
    clinic: Callable[..., Room], doctor: Callable[..., Running]
) -> None:
    made = clinic()
    training = busy(made.gpus)
    try:
        status, said = doctor(made).end()
    finally:
        training.kill()
        training.communicate()
    assert status == 1
    assert f"{made.gpus.uuids[0]} is left alone: a process computes on it" in said
    assert made.gpus.look(0).sets == 0


@pytest.mark.slow
def test_it_lets_go_of_a_gpu_on_which_a_training_begins(
    clinic: Callable[..., Room], doctor: Callable[..., Running]
) -> None:
    made = clinic()
    running = doctor(made, pace=0.2)
    running.locks()
    training = busy(made.gpus)
    try:
        _, said = running.end()
        wait_until(lambda: made.clock() == 0, "the clock is reset")
    finally:
        training.kill()
        training.communicate()
    assert "a process computes on it" in said
    assert examined(made).without["ended"].startswith("a process computes on it")


@pytest.mark.slow
def test_without_permission_it_says_the_remedy_and_measures_the_rest(
    clinic: Callable[..., Room], doctor: Callable[..., Running]
) -> None:
    made = clinic(warden=False)
    made.gpus.break_gpu(0, set_error=NVML_ERROR_NO_PERMISSION)
    made.warden()
    status, said = doctor(made, pace=0.1).end()
    assert status == 0
    assert "CAP_SYS_ADMIN" in said
    found = examined(made)
    assert found.permission is not None
    assert not found.permission.can_set
    assert {"pairs", "killed"} <= found.without.keys()
    assert found.settled is not None
    assert found.counter is not None
    assert [waits.clock_mhz for waits in found.waiting] == [0]
    assert made.gpus.look(0).sets == 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["set", "read"])
def test_nvml_that_hangs_ends_the_examination_and_the_warden_resets(
    clinic: Callable[..., Room], doctor: Callable[..., Running], call: HangingCall
) -> None:
    made = clinic()
    running = doctor(made, pace=0.3)
    running.locks()
    made.gpus.break_gpu(0, hang=[call])
    _, said = running.end()
    assert "doesn't return" in said.replace("\n    ", " ")
    running.is_gone()


@pytest.mark.slow
def test_without_a_warden_no_clock_is_touched(clinic: Callable[..., Room], doctor: Callable[..., Running]) -> None:
    made = clinic(warden=False)
    status, said = doctor(made, pace=0.03).end()
    assert status == 0
    assert "no warden answers" in said.replace("\n    ", " ")
    assert made.gpus.look(0).sets == made.gpus.look(0).resets == 0
    assert examined(made).settled is not None


def test_clocks_can_be_left_alone(clinic: Callable[..., Room], doctor: Callable[..., Running]) -> None:
    made = clinic()
    wait_until(lambda: made.journal.exists() and made.named() == [], "the warden has reset what it doesn't know")
    resets = made.gpus.look(0).resets
    status, _ = doctor(made, "--leave-clocks", pace=0.03).end()
    assert status == 0
    assert (made.gpus.look(0).sets, made.gpus.look(0).resets) == (0, resets)
    assert "--leave-clocks" in examined(made).without["permission"]


def test_without_a_load_it_says_what_needs_one(clinic: Callable[..., Room], doctor: Callable[..., Running]) -> None:
    made = clinic()
    refusing = f"{shlex.quote(sys.executable)} -c 'print({json.dumps(json.dumps({'refused': 'no torch'}))})'"
    status, _ = doctor(made, load=refusing).end()
    assert status == 0
    found = examined(made)
    assert found.permission is not None
    assert found.permission.can_set
    needing = ("settled", "counter", "pairs", "waiting", "page", "markers")
    assert {found.without[name] for name in needing} == {"it needs load: no torch"}


def test_a_load_that_dies_costs_its_checks_only(clinic: Callable[..., Room], doctor: Callable[..., Running]) -> None:
    made = clinic()
    doomed = f"{shlex.quote(sys.executable)} -c 'raise SystemExit(\"out of memory\")'"
    status, _ = doctor(made, load=doomed).end()
    assert status == 0
    assert "out of memory" in examined(made).without["load"]


@pytest.mark.slow
def test_the_agent_begins_with_what_the_doctor_measured_while_its_driver_is_the_same(
    clinic: Callable[..., Room], doctor: Callable[..., Running]
) -> None:
    made = clinic()
    assert unhindered(made, doctor)[1] == 0
    agent = made.agent()
    wait_until(lambda: agent.report().gpus[0].lag is not None, "the clocks are told")
    lag, found = agent.report().gpus[0].lag, examined(made)
    assert lag is not None
    assert lag.samples == len(found.lags_s(up=True)) + len(found.lags_s(up=False))
    assert {(row.clock_mhz, row.samples) for row in lag.targets or () if row.direction == "down"} == {
        (clock_mhz, len(lags)) for clock_mhz, lags in found.lags_by_target(up=False)
    }
    for one in (agent, agent.clocks):
        one.end()
    record = Record.read(made.state_dir)
    assert record is not None
    Record.of(record.joulepath, "another driver", record.taken_at, record.seconds, record.gpus).write(made.state_dir)
    another = made.agent()
    assert another.counts() != {}, "the clocks are told what there is to tell"
    assert another.report().gpus[0].lag is None


def test_it_is_a_command_of_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), suppress(KeyError):
        main(["doctor", "--help"])
    assert "usage: joulepath-agent doctor" in capsys.readouterr().out
