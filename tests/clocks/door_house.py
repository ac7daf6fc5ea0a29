"""An endpoint with doors for pods, and who comes to them."""

from __future__ import annotations

import math
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from joulepath_clocks.channel.words import Came
from joulepath_clocks.endpoint import Endpoint
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.peers.peer import Identify, JobPod, Peer
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, PipelinePlace, Reply
from tests.agent.room import wait_until
from tests.clocks.gpus.test_setter import MovedGpu, NotedLessor
from tests.clocks.peers.old_kernel import before_5_3

__all__ = ["HELLO", "OTHER", "POD", "House", "by_door", "house"]

POD, OTHER = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "1b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))


class House:
    """An endpoint with doors for pods, a /proc that says which pod a process is in, and ranks for all who ask."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.pods = folder / "pods"
        self.proc = folder / "proc"
        self.proc.mkdir()
        (self.proc / "self").symlink_to("/proc/self")
        self.refusals: Counter[str] = Counter()
        self.ranks: list[Rank] = []
        self.ends: list[End] = []
        """Why ranks ended."""
        self.page = OwnPage().descriptor
        stack.callback(os.close, self.page)
        self._folder, self._stack = folder, stack

    def open(self, identify: Identify, most: int = BUDGET.pods) -> None:
        """Begins to serve."""
        served = Endpoint(
            self._folder / "agent.sock",
            identify,
            self._admit,
            lambda _: None,
            self._refused,
            replace(BUDGET, pods=most),
            pods=self.pods,
            proc=self.proc,
        )
        served.start()
        self._stack.callback(served.stop)

    def open_on_old_kernel(self) -> None:
        """Begins to serve where the kernel doesn't tell who connects."""
        self.open(lambda *asked: before_5_3(lambda: CgroupIdentity(self.proc)(*asked)))

    def stands(self, pid: int, pod: str) -> None:
        """That process is in that pod from now on."""
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "cgroup").write_text(f"0::/kubepods/pod{pod}/c\n")

    def door(self, pod: str) -> Path:
        """Makes that pod's folder, and waits for its socket."""
        (self.pods / pod).mkdir()
        wait_until((self.pods / pod / "agent.sock").exists, "it has a socket")
        return self.pods / pod / "agent.sock"

    def client(self, path: Path) -> socket.socket:
        """A connection of this process."""
        made = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        made.settimeout(60)
        made.connect(str(path))
        return made

    def ask(self, path: Path) -> tuple[socket.socket, Reply]:
        """A connection of this process that has said hello, and the answer."""
        made = self.client(path)
        socket.send_fds(made, [HELLO.encode()], [self.page])
        return made, Reply.decode(made.recv(4096))

    def _admit(self, hello: Hello, peer: Peer, page: SharedPage) -> Rank:
        gpu = MovedGpu(capped=False)
        gpu.refused = None  # type: ignore[attr-defined]
        setter = ClockSetter(cast(Gpu, gpu), NotedLessor())
        self._stack.callback(setter.close, 5.0)
        pod = JobPod("default", "pod", peer.pod_uid, "job", "job-uid")
        came, life = Came(len(self.ranks), "GPU-1", pod, hello.encode()), TimeToLive(math.inf)
        rank = _Noted(came, hello, peer, page, setter, lambda _: None, lambda _: None, time_to_live=life)
        rank.ends = self.ends
        self.ranks.append(rank)
        return rank

    def _refused(self, code: str) -> None:
        self.refusals[code] += 1


class _Noted(Rank):
    """A rank that notes why it ended."""

    ends: list[End]

    def close(self, end: End) -> None:
        if self.alive:
            self.ends.append(end)
        super().close(end)


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:  # a socket's name has 107 characters
        yield House(Path(folder), stack)


def by_door(connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
    """A peer of the pod whose door it is."""
    return Peer(os.getpid(), os.pidfd_open(os.getpid()), pod_uid or "any")
