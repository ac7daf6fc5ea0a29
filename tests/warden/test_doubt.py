"""The warden as a process on a node that nobody has tidied: what the journal leaves in doubt is reset, at start, once
or by hand."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from joulepath_warden.journal import Journal
from tests.agent.room import Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held
from tests.warden.locked_node import NVML_ERROR_UNKNOWN, Held, is_reset

# the journal


@pytest.mark.parametrize("what", ["missing", "folder", "byte", "line", "cut"])
def test_a_journal_that_cannot_be_read_resets_every_gpu(agentless: Callable[..., Room], what: str) -> None:
    made = agentless(1, 3, journal=what not in ("missing", "folder"))
    match what:
        case "folder":
            made.journal.mkdir()
        case "byte":
            made.journal.write_bytes(b"\xff" + made.journal.read_bytes()[1:])
        case "line":
            made.journal.write_bytes(b"GPU-of-another-day\n" + made.journal.read_bytes())
        case "cut":
            made.journal.write_bytes(made.journal.read_bytes()[:-1])
    warden = made.warden()
    wait_until(lambda: not (made.clock(1) or made.clock(3)), "the clocks are reset")
    assert warden.said("every GPU is reset")
    if what != "folder":
        wait_until(lambda: made.named() == [], "the journal is empty")


def test_only_what_the_journal_names_is_reset(agentless: Callable[..., Room]) -> None:
    made = agentless(0)
    made.warden()
    is_reset(made, 0)
    assert [made.gpus.look(gpu).resets for gpu in range(4)] == [1, 0, 0, 0]


def test_a_journal_that_cannot_be_written_leases_nothing(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    made.journal.mkdir(parents=True)
    agent, peer = made.agent(), made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: (r := agent.rank()) is not None and "journal can't be written" in r.reason, "the rank says why")
    assert made.gpus.look(0).sets == 0


def test_a_gpu_that_is_not_there_stays_in_the_journal_and_keeps_nobody_waiting(agentless: Callable[..., Room]) -> None:
    made, gone = agentless(0), "GPU-00000000-0000-4000-8000-000000000000"
    Journal(made.state_dir).add(gone)
    warden = made.warden()
    is_reset(made, 0)
    warden.send(signal.SIGTERM)
    assert warden.wait() == 0
    assert made.named() == [gone]


# once, and by hand


def test_once_resets_what_is_in_doubt_and_exits_with_0_done_or_not(agentless: Callable[..., Room]) -> None:
    made = agentless(0, 1)
    made.gpus.break_gpu(0, set_error=NVML_ERROR_UNKNOWN)
    once = made.warden("--once", "--limit", "1", waits=False)
    assert once.wait() == 0
    assert once.said(f"not reset within 1 s: {made.gpus.uuids[0]}")
    assert (made.clock(0), made.clock(1), made.named()) == (900, 0, [made.gpus.uuids[0]])
    made.gpus.break_gpu(0)
    assert made.warden("--once", waits=False).wait() == 0
    assert (made.clock(0), made.named()) == (0, [])


def test_once_waits_for_a_warden_that_ends_and_not_for_ever(locked: Callable[[], Held]) -> None:
    made, warden, agent, _ = locked()
    assert made.warden("--once", "--limit", "0.5", waits=False).wait() == 0
    assert warden.said("nothing is done here")
    assert made.clock() == LOW_MHZ
    once = made.warden("--once", waits=False)
    for one in (warden, agent):
        one.end()
    assert once.wait() == 0
    assert (made.clock(), made.named()) == (0, [])


def test_without_a_state_folder_every_gpu_is_reset(agentless: Callable[..., Room]) -> None:
    made = agentless(2, journal=False)
    made.state_dir.rmdir()
    made.state_dir.write_text("a file")
    assert made.warden(waits=False).wait() == 1
    assert made.clock(2) == 0


@pytest.mark.parametrize("missing", [{"VIRTUAL_GPUS_STATE": "/nowhere"}, {"LD_LIBRARY_PATH": "/nowhere"}])
def test_a_node_without_driver_or_library_keeps_nobody_waiting(
    room: Callable[..., Room], missing: dict[str, str]
) -> None:
    made = room()
    command = [sys.executable, "-m", "joulepath_warden", "--once", "--state-dir", str(made.state_dir)]
    environment = {**made.gpus.environment, **missing}
    once = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "there is no NVML library or no driver" in once.stderr
    assert "not reset within" not in once.stderr
    assert not made.journal.exists(), "every GPU that comes is in doubt still"


def test_by_hand_every_gpu_is_reset_unless_a_warden_is_there(agentless: Callable[..., Room]) -> None:
    made = agentless(0, 3, journal=False)
    made.journal.write_text("nonsense")
    assert made.warden("--reset-all", waits=False).wait() == 0
    assert (made.clock(0), made.clock(3), made.named()) == (0, 0, [])
    made.warden()
    by_hand = made.warden("--reset-all", waits=False)
    assert by_hand.wait() == 1
    assert by_hand.said("to reset by hand")


def test_by_hand_a_gpu_that_cannot_be_reset_stays_in_the_journal(agentless: Callable[..., Room]) -> None:
    made = agentless(0, 1)
    made.gpus.break_gpu(0, hang=["reset"])
    assert made.warden("--reset-all", "--limit", "1", waits=False).wait() == 1
    assert (made.clock(1), made.named()) == (0, [made.gpus.uuids[0]])


def test_a_reset_restores_the_clocks_that_the_site_declared(agentless: Callable[..., Room]) -> None:
    made = agentless(0)
    made.warden(JOULEPATH_SITE_CLOCKS="210,1200")
    wait_until(lambda: made.clock(0) == 1200, "the site's clocks are back")
    assert (made.gpus.look(0).next_low_mhz, made.gpus.look(1).sets) == (210, 0)
