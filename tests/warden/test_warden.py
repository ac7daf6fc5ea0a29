"""The warden as a process, beside a real agent and training processes: what is reset, whoever dies, stops or hangs."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from joulepath_warden.journal import EVERY_GPU, Journal
from joulepath_warden.wire import DOCTOR_FOLDER, MAX_MESSAGE_BYTES, SOCKET_NAME, Answer, Request, Verb
from tests.agent.room import Launcher, LocalAgent, Process, Room, RunningWarden, wait_until
from tests.agent.test_agent import LOW_MHZ, held, plan
from virtual_gpus.fixtures import run_program

NVML_ERROR_UNKNOWN = 999
Held = tuple[Room, RunningWarden, LocalAgent, Process]


@pytest.fixture
def locked(room: Callable[..., Room]) -> Callable[[], Held]:
    """Factory of a warden and an agent that holds a rank's GPU locked."""

    def make() -> Held:
        made = room(time_scale=0.1)
        warden, agent = made.warden(), made.agent()
        peer = made.peer(iterations=100_000)
        assert peer.hear()["accepted"]
        agent.plans(held())
        wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
        assert made.named() == [made.gpus.uuids[0]]
        return made, warden, agent, peer

    return make


@pytest.fixture
def agentless(room: Callable[..., Room]) -> Callable[..., Room]:
    """Factory of a node on which somebody has locked GPUs, named in the journal unless told otherwise."""

    def make(*gpus: int, journal: bool = True) -> Room:
        made = room(time_scale=0.1)
        made.state_dir.mkdir()
        if journal:
            written = Journal(made.state_dir)
            written.remove(EVERY_GPU)
            written.add(*(made.gpus.uuids[gpu] for gpu in gpus))
        for gpu in gpus:
            assert run_program(made.gpus, "set_clock_error", gpu=gpu)["error"] == 0
            assert made.clock(gpu) == 900
        return made

    return make


def is_reset(made: Room, *gpus: int) -> None:
    """Waits until these GPUs are at default clocks and the journal names none of them."""
    wait_until(lambda: not any(made.clock(gpu) for gpu in gpus), "the clocks are reset")
    uuids = {made.gpus.uuids[gpu] for gpu in gpus}
    wait_until(lambda: not uuids.intersection(made.named()), "the journal names them no more")


def is_ready(agent: LocalAgent) -> bool:
    """Whether the agent says that it is."""
    try:
        with urlopen(f"http://127.0.0.1:{agent.health_port}/readyz", timeout=10):
            return True
    except HTTPError:
        return False


# somebody dies


def test_the_clock_of_a_killed_process_of_clocks_is_reset_without_another_one(locked: Callable[[], Held]) -> None:
    made, _, agent, _ = locked()
    agent.clocks.send(signal.SIGKILL)
    is_reset(made, 0)


def test_clocks_are_reset_by_their_process_when_the_warden_is_killed_and_locked_again_with_the_next_one(
    locked: Callable[[], Held],
) -> None:
    made, warden, agent, _ = locked()
    warden.send(signal.SIGKILL)
    wait_until(lambda: made.clock() == 0, "the clock is reset")
    assert made.named() == [made.gpus.uuids[0]], "nobody but a warden writes the journal"
    wait_until(lambda: not is_ready(agent), "the agent isn't ready")
    wait_until(lambda: (r := agent.rank()) is not None and r.reason.startswith("NoWardenLease"), "the rank says why")
    made.warden()
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked again")
    wait_until(lambda: is_ready(agent), "the agent is ready")
    assert made.named() == [made.gpus.uuids[0]]


def test_what_both_leave_when_they_are_killed_the_next_warden_resets(locked: Callable[[], Held]) -> None:
    made, warden, agent, peer = locked()
    ending: list[Process] = [warden, agent.clocks, agent]
    for one in ending:  # a stopped one can't reset before it is killed
        one.send(signal.SIGSTOP)
    for one in [*ending, peer]:
        one.end()
    assert made.clock() == LOW_MHZ
    made.warden()
    is_reset(made, 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_process_that_measures_clocks_go_on_and_ranks_that_come_wait(
    locked: Callable[[], Held], how: signal.Signals
) -> None:
    made, _, agent, peer = locked()
    agent.plans(plan("played", (LOW_MHZ, 900) * 4))
    wait_until(lambda: (r := agent.rank()) is not None and r.applied_hash == "played", "a plan is played")
    agent.send(how)
    begun_ns = time.monotonic_ns()

    def switches_since() -> set[int]:
        return {one.high_mhz for one in made.gpus.orders() if one.taken_ns > begun_ns}

    wait_until(lambda: len(switches_since()) > 1, "clocks are switched all the while")
    other = made.peer(rank=1, ordinal=1, iterations=100_000)
    refusal = other.hear() if how is signal.SIGKILL else None
    assert refusal is None or (refusal["accepted"], refusal["final"]) == (False, False)
    agent.end()
    peer_there = made.agent_of(agent.clocks)
    wait_until(lambda: (r := peer_there.rank()) is not None and r.applied_hash is not None, "it is told of the rank")
    peer_there.plans()
    is_reset(made, 0)
    peer.end()


# somebody is stopped


def test_the_clock_of_a_stopped_process_of_clocks_is_reset_and_leased_anew_when_it_goes_on(
    locked: Callable[[], Held],
) -> None:
    made, _, agent, _ = locked()
    agent.clocks.send(signal.SIGSTOP)
    wait_until(lambda: made.clock() == 0, "the clock is reset")
    assert made.named() == [made.gpus.uuids[0]], "a late order may still come"
    agent.clocks.send(signal.SIGCONT)
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked again, by a lease")
    wait_until(lambda: agent.counts()["leaseEnds"] != {}, "the rank's lease has ended")
    agent.plans()
    is_reset(made, 0)


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_a_process_of_clocks_stopped_between_lease_and_lock_leaves_nothing_locked(
    room: Callable[..., Room], then: signal.Signals
) -> None:
    made = room(time_scale=0.1)
    made.gpus.break_gpu(0, hang=["set"])
    warden, agent, peer = made.warden(), made.agent(), made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: made.named() == [made.gpus.uuids[0]], "the GPU is leased")
    agent.clocks.send(signal.SIGSTOP)
    peer.end()
    wait_until(lambda: warden.said("is revoked"), "the lease is revoked")
    made.gpus.break_gpu(0)
    agent.clocks.send(then)
    is_reset(made, 0)
    assert made.gpus.look(0).sets == (1 if then == signal.SIGCONT else 0), "the late order was there"


def test_a_late_order_of_clocks_that_die_before_they_can_reset_is_undone(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    made.gpus.break_gpu(0, hang=["set"])
    warden, agent, peer = made.warden(), made.agent(), made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: made.named() == [made.gpus.uuids[0]], "the GPU is leased")
    agent.clocks.send(signal.SIGSTOP)
    wait_until(lambda: warden.said("is revoked"), "the lease is revoked")
    wait_until(lambda: made.gpus.look(0).resets == 2, "it is reset: at the start, and now")
    made.gpus.break_gpu(0, hang=["reset"])
    agent.clocks.send(signal.SIGCONT)
    wait_until(lambda: made.clock() == LOW_MHZ, "the late order is there")
    agent.clocks.send(signal.SIGKILL)
    agent.clocks.wait()
    assert made.clock() == LOW_MHZ
    made.gpus.break_gpu(0)
    is_reset(made, 0)


def test_clocks_are_reset_by_their_process_when_the_warden_is_stopped(locked: Callable[[], Held]) -> None:
    made, warden, agent, _ = locked()
    warden.send(signal.SIGSTOP)
    wait_until(lambda: made.clock() == 0, "the clock is reset")
    wait_until(lambda: not is_ready(agent), "the agent isn't ready")
    warden.send(signal.SIGCONT)
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked again")


# the driver hangs or fails


def test_a_gpu_whose_order_hangs_is_reset_by_the_warden_and_no_other(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    warden, agent = made.warden(), made.agent()
    peers = [made.peer(rank=gpu, ordinal=gpu, iterations=100_000) for gpu in (0, 1)]
    assert all(peer.hear()["accepted"] for peer in peers)
    agent.plans(held())
    wait_until(lambda: made.clock(0) == made.clock(1) == LOW_MHZ, "both clocks are locked")
    made.gpus.break_gpu(0, hang=["set"])
    agent.plans(held("two", 600, activate_at=0))
    wait_until(lambda: warden.said(f"the lease of {made.gpus.uuids[0]} is revoked"), "the lease is revoked")
    wait_until(lambda: made.gpus.look(0).resets >= 3, "it is reset: at the start, by the agent before its order, now")
    wait_until(lambda: made.clock(1) == 600, "the other GPU goes on")
    assert not warden.said(f"the lease of {made.gpus.uuids[1]} is revoked")
    for peer in peers:
        peer.end()
    made.gpus.break_gpu(0)
    is_reset(made, 0, 1)


def test_a_reset_that_hangs_delays_no_other(agentless: Callable[..., Room]) -> None:
    made = agentless(0, 1, 2)
    made.gpus.break_gpu(0, hang=["reset"])
    made.gpus.break_gpu(1, set_error=NVML_ERROR_UNKNOWN)
    made.warden()
    is_reset(made, 2)
    assert made.named() == sorted(made.gpus.uuids[:2])
    for gpu in (0, 1):
        made.gpus.break_gpu(gpu)
    is_reset(made, 0, 1)


@pytest.mark.parametrize("beside", ["a warden", "a warden that ends", "nobody"])
def test_an_nvml_error_at_sigterm_is_tried_again(locked: Callable[[], Held], beside: str) -> None:
    made, warden, agent, _ = locked()
    made.gpus.break_gpu(0, set_error=NVML_ERROR_UNKNOWN)
    if beside == "nobody":
        warden.end()
    ending: list[Process] = [agent.clocks, warden] if beside == "a warden that ends" else [agent.clocks]
    for one in ending:
        one.send(signal.SIGTERM)
    time.sleep(1.2)  # longer than an agent once tried
    assert made.clock() == LOW_MHZ
    made.gpus.break_gpu(0)
    assert [one.wait() for one in ending] == [0] * len(ending)
    wait_until(lambda: made.clock() == 0, "the clock is reset")


def test_sigterm_of_the_warden_alone_makes_the_clocks_let_go(locked: Callable[[], Held]) -> None:
    made, warden, agent, _ = locked()
    warden.send(signal.SIGTERM)
    assert warden.wait() == 0
    is_reset(made, 0)
    wait_until(lambda: not is_ready(agent), "the agent isn't ready")


def test_a_warden_that_cannot_reset_says_so_and_leaves_the_journal(agentless: Callable[..., Room]) -> None:
    made = agentless(0)
    made.gpus.break_gpu(0, set_error=NVML_ERROR_UNKNOWN)
    warden = made.warden("--grace", "0.5")
    warden.send(signal.SIGTERM)
    assert warden.wait() == 1
    assert warden.said(f"may still be locked: {made.gpus.uuids[0]}")
    assert made.named() == [made.gpus.uuids[0]]


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


# one warden a node


@pytest.fixture
def other_release(launcher: Launcher, tmp_path: Path) -> Iterator[Callable[[Room], Room]]:
    """Factory of a second release on the same node."""
    with ExitStack() as stack:

        def make(made: Room) -> Room:
            (tmp_path / "other").mkdir()
            other = Room(launcher, made.gpus, tmp_path / "other", stack)
            other.state_dir, other.socket = made.state_dir, made.socket
            return other

        yield make


def test_a_second_release_waits_for_the_first_to_end_and_takes_nothing_from_it(
    locked: Callable[[], Held], other_release: Callable[[Room], Room]
) -> None:
    made, warden, agent, _ = locked()
    other = other_release(made)
    second = other.warden(waits=False)
    with other.log.open("ab") as log:
        clocks, waiting = other.begin_clocks(other.socket, log.fileno()), other.begin_agent(log=log.fileno())
    waiting.health_port = waiting.hear()["healthPort"]
    waiting.plans(held())
    for what in ("another warden (", "another process of clocks (", "serve another agent on this node"):
        wait_until(lambda what=what: second.said(what), what)  # type: ignore[misc]
    assert not is_ready(waiting)
    before, latest = agent.rank(), agent.rank
    assert before is not None
    wait_until(lambda: (r := latest()) is not None and r.iteration > before.iteration + 20, "the training goes on")
    assert is_ready(agent)
    assert (made.clock(), made.gpus.look(0).sets, agent.counts()["leaseEnds"]) == (LOW_MHZ, 1, {})
    for one in (agent, agent.clocks, warden):
        one.end()
    assert clocks.hear() == {}
    wait_until(lambda: is_ready(waiting), "the second release goes on")
    assert other.peer(ordinal=1, iterations=100_000).hear()["accepted"]
    wait_until(lambda: made.clock(1) == LOW_MHZ, "it plays the plan")


def test_nobody_but_root_may_come_to_the_socket_and_one_agent_at_a_time(room: Callable[..., Room]) -> None:
    made = room()
    made.warden()
    path = made.state_dir / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def connect() -> tuple[socket.socket, Answer]:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(path))
        return connection, Answer.decode(connection.recv(MAX_MESSAGE_BYTES))

    def ask(request: Request) -> Answer:
        first.send(request.encode())
        return Answer.decode(first.recv(MAX_MESSAGE_BYTES))

    first, greeting = connect()
    second, refusal = connect()
    with first, second:
        assert greeting.refused == ""
        assert "serves another agent" in refusal.refused
        uuid = made.gpus.uuids[0]
        wait_until(lambda: ask(Request(Verb.TAKE, (uuid,))).refused == "", "it is leased")
        assert "is no UUID" in ask(Request(Verb.TAKE, ("../x",))).refused
        assert "doesn't show" in ask(Request(Verb.TAKE, ("GPU-00000000-0000-4000-8000-000000000000",))).refused
        assert ask(Request(Verb.BEAT, (uuid,))) == Answer()
        wait_until(lambda: ask(Request(Verb.BEAT)).revoked == (uuid,), "what no beat names is revoked")
        assert "is being reset" in ask(Request(Verb.TAKE, (uuid,))).refused
        ask(Request(Verb.GIVE_BACK, (uuid,)))
        wait_until(lambda: ask(Request(Verb.TAKE, (uuid,))).refused == "", "it is leased again")
        first.send(b"nonsense")
        assert first.recv(MAX_MESSAGE_BYTES) == b""
    is_reset(made, 0)


def test_a_doctor_leases_gpus_beside_the_agent_and_neither_touches_what_the_other_has(
    locked: Callable[[], Held],
) -> None:
    made, _, agent, _ = locked()
    busy, free = made.gpus.uuids[:2]
    path = made.state_dir / DOCTOR_FOLDER / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def ask(verb: Verb, *gpus: str) -> Answer:
        doctor.send(Request(verb, gpus).encode())
        return Answer.decode(doctor.recv(MAX_MESSAGE_BYTES))

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as doctor:
        doctor.connect(str(path))
        assert Answer.decode(doctor.recv(MAX_MESSAGE_BYTES)).refused == ""
        assert ask(Verb.TAKE, busy).refused == f"{busy} is leased by the agent"
        assert ask(Verb.TAKE, free).refused == ""
        assert ask(Verb.GIVE_BACK, busy) == Answer()
        assert ask(Verb.BEAT, busy, free) == Answer(), "it keeps its own"
        peer = made.peer(ordinal=1, iterations=100_000, rank=1)
        assert peer.hear()["accepted"]
        wait_until(lambda: (r := agent.rank(1)) is not None and "leased by the doctor" in r.reason, "its rank says why")
        assert made.gpus.look(1).sets == 0
    wait_until(lambda: made.clock(1) == LOW_MHZ, "the GPU is the agent's once the doctor is gone")
    assert made.clock(0) == LOW_MHZ
    assert sorted(made.named()) == sorted((busy, free))


def test_a_warden_whose_log_nobody_reads_goes_on(
    room: Callable[..., Room], launcher: Launcher, clogged: tuple[int, int]
) -> None:
    made = room(time_scale=0.1)
    arguments = ["--state-dir", str(made.state_dir)]
    warden = Process(launcher, "joulepath_warden.__main__", arguments, made.gpus.environment, clogged[1])
    try:
        wait_until((made.state_dir / SOCKET_NAME).exists, "clocks are leased")
        made.has_warden = True
        agent, peer = made.agent(), made.peer(iterations=100_000)
        assert peer.hear()["accepted"]
        agent.plans(held())
        wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
        agent.clocks.send(signal.SIGKILL)
        is_reset(made, 0)
    finally:
        warden.end()


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
