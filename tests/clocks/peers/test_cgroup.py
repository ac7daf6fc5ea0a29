"""Who is at the socket: the kernel's word."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from joulepath_clocks.peers.cgroup import CgroupIdentity, pod_uid_of
from joulepath_clocks.peers.refusal import PeerRefusedError
from tests.clocks.peers.proc_trees import TREES

UID = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
UNIT = f"pod{UID.replace('-', '_')}.slice"
CONTAINER = "4f" * 32


@pytest.mark.parametrize("name", TREES)
def test_the_pod_is_found_on_every_kind_of_node(tmp_path: Path, name: str) -> None:
    (tmp_path / "self").symlink_to("/proc/self")
    (tmp_path / str(os.getpid())).mkdir()
    (tmp_path / str(os.getpid()) / "cgroup").write_text(TREES[name].format(uid=UID, unit=UNIT, id=CONTAINER))
    server, client = accepted(tmp_path / "socket")
    with server, client:
        peer = CgroupIdentity(tmp_path)(server, 0.0)
        peer.close()
    assert peer.pod_uid == UID


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/user.slice/user-1000.slice",
        f"/podman-{CONTAINER}",
        f"/kubepods/pod{UID}x/{CONTAINER}",
        f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/x",  # anybody's who has a shell there
        f"/../../../../user.slice/user-1000.slice/user@1000.service/kubepods-{UNIT}/x",
        "/system.slice/containerd.service",  # pods without cgroups of their own (sustainable-computing-io/kepler#153)
    ],
)
def test_what_is_in_no_pod_has_no_uid(path: str) -> None:
    assert pod_uid_of(f"0::{path}\n") is None


def test_cgroups_that_name_two_pods_name_none() -> None:
    other = UID.replace("0", "1")
    assert pod_uid_of(f"5:pids:/kubepods/pod{UID}/c\n4:memory:/kubepods/pod{other}/c\n") is None


def test_a_cgroup_that_a_container_made_below_its_own_does_not_count() -> None:
    other = UID.replace("0", "1")
    assert pod_uid_of(f"0::/kubepods/pod{UID}/{CONTAINER}/pod{other}/x") == UID


def accepted(path: Path) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection of this process with itself, the server's first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(str(path))
        return listener.accept()[0], client


def test_a_process_that_connects_again_is_known_without_a_look_into_proc(tmp_path: Path) -> None:
    for pid, pod in ((os.getpid(), UID), (os.getppid(), UID.replace("0", "1"))):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"0::/kubepods/pod{pod}/{CONTAINER}\n")
    (tmp_path / "self").symlink_to("/proc/self")
    identify = CgroupIdentity(tmp_path)
    for _ in range(2):
        server, client = accepted(tmp_path / f"socket{_}")
        with server, client:
            peer = identify(server, 0.0)
            peer.close()
            assert (peer.pid, peer.pod_uid) == (os.getpid(), UID)
        (tmp_path / str(os.getpid()) / "cgroup").write_text("0::/\n")


CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
    client.connect(sys.argv[1])
    client.recv(1)
"""


def test_another_process_is_never_taken_for_one_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("/proc/self")
    identify = CgroupIdentity(tmp_path)
    for number in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(tmp_path / f"socket{number}"))
            listener.listen(1)
            command = [sys.executable, "-c", CONNECT, str(tmp_path / f"socket{number}")]
            with subprocess.Popen(command) as process, listener.accept()[0] as server:
                (tmp_path / str(process.pid)).mkdir()
                pod = UID.replace("0", str(number))
                (tmp_path / str(process.pid) / "cgroup").write_text(f"0::/kubepods/pod{pod}/{CONTAINER}\n")
                peer = identify(server, 0.0)
                peer.close()
        assert (peer.pid, peer.pod_uid) == (process.pid, pod)


def test_a_process_in_no_pod_is_refused(tmp_path: Path) -> None:
    server, client = accepted(tmp_path / "socket")
    with server, client, pytest.raises(PeerRefusedError, match="NoPod"):
        CgroupIdentity(Path("/proc"))(server, 0.0)
