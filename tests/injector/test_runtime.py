"""Sessions that end before the runtime has told all: it is left in peace, longer each time, and the agent hears why."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from joulepath_injector.folders import PodFolders, TrainerFiles, trainer_package
from joulepath_injector.injector import Injector
from joulepath_injector.nri.messages import TYPES
from joulepath_injector.pods import Pods
from joulepath_injector.runtime import Sessions
from joulepath_injector.words import NO_SOCKET, Came, InjectorWord, Runtime
from tests.injector.runtime_double import RuntimeDouble, container, pod

CLOSED = "the runtime has closed the connection"


class Node:
    """An injector that makes no pauses, and its runtime, if there is one."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "nri.sock"
        self.pods = Pods()
        self.told = list[InjectorWord]()
        self.pods.listen(self.told.append)
        files = TrainerFiles(trainer_package(), folder / "trainer")
        self._sessions = Sessions(self.socket, Injector(self.pods, files, PodFolders(folder / "pods")), self.pods)

    def pauses(self, wanted: int) -> list[float]:
        return [self._sessions.serve() for _ in range(wanted)]

    def sessions(self, *each: Callable[[RuntimeDouble], object]) -> list[float]:
        """The pauses between as many sessions."""

        def run(listener: socket.socket) -> None:
            for session in each:
                trunk, _ = listener.accept()
                with trunk:
                    session(RuntimeDouble(trunk))

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
            listener.listen()
            runs = threading.Thread(target=run, args=(listener,))
            runs.start()
            made = self.pauses(len(each))
            runs.join(30)
        return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def synchronize(runtime: RuntimeDouble, parts: Sequence[bool] = (False,)) -> None:
    runtime.registered()
    for more in parts:
        part = TYPES["SynchronizeRequest"](pods=[pod()], containers=[container()], more=more)
        runtime.call("Synchronize", part.SerializeToString())


def fail(runtime: RuntimeDouble) -> None:
    """What was to be told is told in part."""
    synchronize(runtime, [True])


def test_a_runtime_that_cannot_tell_all_is_asked_ever_more_rarely(node: Node) -> None:
    assert node.sessions(*[fail] * 11) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_once_it_has_told_all_it_is_asked_soon_again(node: Node) -> None:
    assert node.sessions(fail, fail, synchronize, fail, fail) == [1, 2, 1, 1, 2]


def test_a_runtime_that_is_not_there_is_looked_for_each_second(node: Node) -> None:
    assert node.pauses(12) == [1] * 12
    assert node.sessions(fail, fail) == [1, 2]
    assert node.pauses(3) == [1] * 3


def test_the_agent_hears_when_the_runtime_tells_and_why_it_does_not(node: Node) -> None:
    assert node.told == [Runtime(told=False)]
    node.pauses(2)
    node.sessions(fail, lambda runtime: runtime.registered(code=3), synchronize)
    node.pauses(2)
    untold = "the runtime hasn't told what is there: "
    assert node.told[1:] == [
        Runtime(False, f"{NO_SOCKET} at {node.socket}: No such file or directory"),
        Runtime(False, f"{untold}{CLOSED}"),
        Runtime(False, f"{untold}the runtime refuses the plugin: refused (code 3)"),
        Came("uid", "team", "pod"),
        Runtime(True),
        Runtime(False, CLOSED),
        Runtime(False, f"{NO_SOCKET} at {node.socket}: Connection refused"),
    ]


def test_an_agent_that_comes_hears_it_behind_all_pods(node: Node) -> None:
    heard = list[InjectorWord]()

    def tell_and_let_in(runtime: RuntimeDouble) -> None:
        synchronize(runtime)
        node.pods.listen(heard.append)

    node.sessions(tell_and_let_in)
    assert heard[:2] == [Came("uid", "team", "pod"), Runtime(True)]
