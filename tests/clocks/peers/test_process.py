"""Which process is at the socket: the kernel's word, on this kernel and on older ones (by a filter of system calls)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from joulepath_clocks.peers.process import peer_pidfd, pid_of
from joulepath_clocks.peers.refusal import PeerRefusedError
from tests.agent.room import wait_until
from tests.clocks.peers.old_kernel import before_5_3, before_6_5, told

PROC = Path("/proc")
BOOT_S = 0.0
POD = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def accepted(path: Path) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection of this process with itself, the server's first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(str(path))
        return listener.accept()[0], client


def test_the_kernel_tells_the_process_that_connected(tmp_path: Path) -> None:
    server, client = accepted(tmp_path / "socket")
    with server, client:
        pidfd = peer_pidfd(server, PROC, BOOT_S)
        assert pid_of(pidfd, PROC) == os.getpid()
        assert not os.get_inheritable(pidfd)
        os.close(pidfd)


def test_another_folder_than_proc_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PeerRefusedError, match="is it the host's /proc"):
        pid_of(0, tmp_path)


def test_before_linux_6_5_a_process_is_told_that_began_before_its_connection(tmp_path: Path) -> None:
    bound_s = now_s()
    server, client = accepted(tmp_path / "socket")
    with server, client:
        pidfd = before_6_5(lambda: peer_pidfd(server, PROC, bound_s))
        assert pid_of(pidfd, PROC) == os.getpid()
        assert not os.get_inheritable(pidfd)
        os.close(pidfd)


CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
    client.connect(sys.argv[1])
    client.recv(1)
"""


def test_before_linux_6_5_a_process_that_may_be_younger_than_its_connection_is_refused_for_now(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        bound_s = now_s()
        command = [sys.executable, "-c", CONNECT, str(tmp_path / "socket")]
        with subprocess.Popen(command) as process, listener.accept()[0] as server:
            with pytest.raises(PeerRefusedError, match=f"TooYoung: process {process.pid}") as refused:
                before_6_5(lambda: peer_pidfd(server, PROC, bound_s))
            asked_again_s = now_s() + 1
            os.close(before_6_5(lambda: peer_pidfd(server, PROC, asked_again_s)))
    assert not refused.value.final


def test_before_linux_6_5_a_process_that_is_gone_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        command = [sys.executable, "-c", CONNECT, str(tmp_path / "socket")]
        with subprocess.Popen(command) as process, listener.accept()[0] as server:
            process.kill()
            process.wait()
            assert told(server, PROC, now_s()) == f"NoPod: process {process.pid} is gone"


def test_before_linux_5_3_nobody_is_told_for_good(tmp_path: Path) -> None:
    server, client = accepted(tmp_path / "socket")
    with server, client, pytest.raises(PeerRefusedError, match=r"NoPidfd: .*ENOSYS.*Linux 5\.3") as refused:
        before_5_3(lambda: peer_pidfd(server, PROC, now_s()))
    assert refused.value.final


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace of its own takes root")
IN_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def told_in_another_namespace(path: Path, *pod: str) -> str:
    """What an agent in a pid namespace of its own says of this process, on such a kernel."""
    command = [*IN_NAMESPACE, sys.executable, "-m", "tests.clocks.peers.old_kernel", str(path), "/proc", *pod]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):

        def connected() -> bool:
            return path.exists() and client.connect_ex(str(path)) == 0

        wait_until(connected, "the agent listens")
        assert agent.stdout is not None
        return agent.stdout.read().strip()


@ROOT
def test_before_linux_6_5_an_agent_in_another_pid_namespace_says_what_to_do(tmp_path: Path) -> None:
    told = told_in_another_namespace(tmp_path / "socket")
    assert told.startswith("NoPidfd: the kernel doesn't tell who connected: use Linux 6.5, or")


@ROOT
def test_before_linux_6_5_the_socket_of_a_pod_tells_it_in_another_pid_namespace_too(tmp_path: Path) -> None:
    assert told_in_another_namespace(tmp_path / "socket", POD) == f"0 {POD}"


IMPOSTOR = f"""
import os, socket, time
from pathlib import Path
from tests.clocks.peers.old_kernel import told

listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen(1)
bound_s = time.clock_gettime(time.CLOCK_BOOTTIME)
if not (hostile := os.fork()):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(sys.argv[1])
    if os.fork():
        os._exit(0)
    time.sleep(600)  # holds the connection of the one that ends
os.waitpid(hostile, 0)
Path("/proc/sys/kernel/ns_last_pid").write_text(str(hostile - 1))
if not (victim := os.fork()):
    time.sleep(600)
assert victim == hostile
tree = Path(sys.argv[2])
(tree / str(victim)).mkdir()
(tree / str(victim) / "cgroup").write_text("0::/kubepods/pod{POD}/c")
(tree / str(victim) / "stat").symlink_to(f"/proc/{{victim}}/stat")
(tree / "self").symlink_to("/proc/self")
server = listener.accept()[0]
unbound_s = time.clock_gettime(time.CLOCK_BOOTTIME) + 1
print(told(server, tree, bound_s), "|", told(server, tree, unbound_s) == f"{{victim}} {POD}")
"""


@ROOT
def test_before_linux_6_5_nobody_passes_for_the_process_that_got_its_number(tmp_path: Path) -> None:
    """The last word of the program: that the number alone, without the bound, would name the victim's pod."""
    (tmp_path / "proc").mkdir()
    command = [*IN_NAMESPACE, sys.executable, "-c", "import sys\n" + IMPOSTOR]
    done = subprocess.run(
        [*command, str(tmp_path / "socket"), str(tmp_path / "proc")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    refusal, _, deceived = done.stdout.strip().partition(" | ")
    assert refusal.startswith("TooYoung")
    assert deceived == "True"
