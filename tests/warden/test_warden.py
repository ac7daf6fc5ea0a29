"""The warden as a process, beside a real agent and training processes: what is reset, whoever dies, stops or hangs."""

from __future__ import annotations

import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from joulepath_warden.wire import DOCTOR_FOLDER, MAX_MESSAGE_BYTES, SOCKET_NAME, Answer, Request, Verb
from tests.agent.room import Launcher, Process, Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held, plan
from tests.warden.locked_node import NVML_ERROR_UNKNOWN, Held, is_ready, is_reset

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
