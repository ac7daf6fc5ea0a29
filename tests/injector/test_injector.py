"""What becomes of containers, as the runtime's questions and the agent's answers come: over the agent's real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from joulepath_injector.folders import PodFolders, TrainerFiles, trainer_package
from joulepath_injector.injector import Injector
from joulepath_injector.nri.messages import Container, Mount, Pod
from joulepath_injector.places import WEBHOOKS_BOOTSTRAP
from joulepath_injector.pods import Pods
from joulepath_injector.serving import Server
from joulepath_injector.words import (
    MOST_BYTES,
    SOCKET_NAME,
    Answer,
    Came,
    Done,
    InjectorWord,
    Left,
    Outcome,
    Runtime,
    decode,
    encode,
)
from joulepath_rules import JOB_LABELS

LABELS = {JOB_LABELS[0]: "gpt"}
POD = Pod("sandbox", "uid", "team", "pod", LABELS)
ID = "0123456789abcdef" * 4
FOLDER = "pods/uid.0123456789abcdef"
TRAINS = Container("sandbox", "pytorch", ("PYTHONPATH=/opt/user",), id=ID)
SIDECAR = Container("sandbox", "sidecar", id="e" * 64)
CAME = Came("uid", "team", "pod", LABELS)


class Agent:
    """An agent that is connected."""

    def __init__(self, folder: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(30)
        self.connection.connect(str(folder / SOCKET_NAME))

    def hear(self) -> InjectorWord:
        """What is said next of pods."""
        while isinstance(word := decode(self.connection.recv(MOST_BYTES)), Runtime):
            pass
        assert not isinstance(word, Answer)
        return word

    def hung_up_on(self) -> bool:
        """Waits for the end of what is said."""
        while self.connection.recv(MOST_BYTES):
            pass
        return True

    def say(self, *containers: str, final: bool = True, uid: str = "uid") -> None:
        self.connection.send(encode(Answer(uid, containers, final)))


class Node:
    """A node's injector, in folders of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods = Pods()
        Server(folder, self.pods).start()
        self.trainer = TrainerFiles(trainer_package(), folder / "trainer")
        self.injector = Injector(self.pods, self.trainer, PodFolders(folder / "pods"))
        self.agents = list[Agent]()

    def agent(self) -> Agent:
        self.agents.append(Agent(self.folder))
        return self.agents[-1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    for agent in made.agents:
        agent.connection.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for an agent as long as a busy machine needs."""
    monkeypatch.setattr("joulepath_injector.injector._LIMIT_S", 30)


@pytest.mark.usefixtures("patient")
def test_a_container_that_the_agent_names_gets_the_trainer_and_its_pods_folder(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    assert agent.hear() == CAME
    agent.say("pytorch")
    made = node.injector.created(POD, TRAINS)
    assert made is not None
    assert {mount.destination: mount.source for mount in made.mounts} == {
        "/joulepath": str(node.trainer.place()),
        "/run/joulepath": str(node.folder / FOLDER),
    }
    assert (node.folder / FOLDER).is_dir()
    assert agent.hear() == Done("uid", "pytorch", Outcome.INJECTED)
    assert node.injector.created(POD, SIDECAR) is None
    node.injector.left(POD)
    assert agent.hear() == Left("uid")
    assert not (node.folder / FOLDER).exists()


@pytest.mark.usefixtures("patient")
def test_a_container_that_has_ended_has_no_folder_and_the_next_one_keeps_its_own(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say("pytorch")
    assert node.injector.created(POD, TRAINS) is not None
    made = node.injector.created(POD, replace(TRAINS, id="f" * 64))
    node.injector.stopped(POD, TRAINS)
    node.injector.stopped(POD, SIDECAR)
    assert [node.folder / "pods" / f"uid.{'f' * 16}"] == [*(node.folder / "pods").iterdir()]
    assert made is not None
    assert made.mounts[1].source == str(node.folder / "pods" / f"uid.{'f' * 16}")


@pytest.mark.usefixtures("patient")
def test_a_pod_that_nobody_asked_about_stays_as_it_is_and_nothing_is_made(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say()
    assert node.injector.created(POD, TRAINS) is None
    assert not (node.folder / "pods").exists()


@pytest.mark.usefixtures("patient")
def test_an_answer_that_may_change_is_waited_for_until_it_names_somebody(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say(final=False)
    made = list[object]()
    waits = threading.Thread(target=lambda: made.append(node.injector.created(POD, TRAINS)))
    waits.start()
    agent.say("pytorch", final=False)
    waits.join(30)
    assert made[0] is not None


def test_without_an_agent_nothing_is_waited_for_and_the_next_one_hears_that_it_was_late(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joulepath_injector.injector._LIMIT_S", 3600)
    node.injector.came(POD)
    assert node.injector.created(POD, TRAINS) is None
    assert node.injector.created(POD, SIDECAR) is None
    agent = node.agent()
    assert agent.hear() == CAME
    agent.say("pytorch")
    assert agent.hear() == Done("uid", "pytorch", Outcome.LATE)


def test_an_agent_that_is_silent_is_waited_for_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    assert node.injector.created(POD, TRAINS) is None
    monkeypatch.setattr("joulepath_injector.injector._LIMIT_S", 3600)
    assert node.injector.created(POD, SIDECAR) is None
    agent.say("pytorch", uid="another")  # it answers again: it is waited for
    agent.say("pytorch")
    assert agent.hear() == Done("uid", "pytorch", Outcome.LATE)
    assert node.injector.created(POD, TRAINS) is not None
    assert agent.hear() == Done("uid", "pytorch", Outcome.INJECTED)


@pytest.mark.usefixtures("patient")
def test_an_agent_that_goes_while_a_container_waits_is_not_waited_for(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    made = list[object]()
    waits = threading.Thread(target=lambda: made.append(node.injector.created(POD, TRAINS)))
    waits.start()
    agent.connection.close()
    waits.join(20)
    assert made == [None]


@pytest.mark.parametrize("spoil", [
    lambda node: (node.folder / "trainer").write_text("a file"),
    lambda node: (node.folder / "pods").write_text("a file"),
], ids=["no trainer", "no folder for the pod"])  # fmt: skip
@pytest.mark.usefixtures("patient")
def test_what_is_not_there_is_not_mounted_and_the_agent_hears_why(node: Node, spoil: Callable[[Node], object]) -> None:
    spoil(node)
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say("pytorch")
    assert node.injector.created(POD, TRAINS) is None
    done = agent.hear()
    assert isinstance(done, Done)
    assert done.outcome is Outcome.UNSUITED
    assert done.why.startswith("The node has no files for it: ")


@pytest.mark.usefixtures("patient")
def test_a_container_that_is_unsuited_is_told_of_and_one_of_the_webhook_left_alone(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say("pytorch", "webhooks")
    webhooks = Container("sandbox", "webhooks", (f"PYTHONPATH={WEBHOOKS_BOOTSTRAP}:/x",))
    mounts = Container("sandbox", "pytorch", (), (Mount("/joulepath", "/mine"),))
    assert node.injector.created(POD, webhooks) is None
    assert node.injector.created(POD, mounts) is None
    assert agent.hear() == Done("uid", "pytorch", Outcome.UNSUITED, "The container mounts /joulepath itself.")


@pytest.mark.usefixtures("patient")
def test_an_injector_that_comes_later_knows_what_one_before_it_has_done(node: Node) -> None:
    old, unused = node.trainer.folder / "old", node.trainer.folder / "unused"
    old.mkdir(parents=True)
    unused.mkdir()
    for name in (f"uid.{ID[:16]}", f"gone.{ID[:16]}", f"uid.{'f' * 16}"):
        (node.folder / "pods" / name).mkdir(parents=True)
    injected = Container("sandbox", "injected", (), (Mount("/joulepath", str(old)),))
    node.injector.synchronized([POD], [injected, TRAINS, Container("unknown", "stray")])
    agent = node.agent()
    assert agent.hear() == CAME
    assert agent.hear() == Done("uid", "injected", Outcome.INJECTED)
    agent.say("injected", "pytorch")
    assert agent.hear() == Done("uid", "pytorch", Outcome.BEFORE)
    assert old.exists()
    assert not unused.exists()
    assert [*(node.folder / "pods").iterdir()] == [node.folder / FOLDER]
    node.injector.synchronized([], [])
    assert agent.hear() == Left("uid")
    assert not old.exists()


@pytest.mark.usefixtures("patient")
def test_a_container_of_the_webhook_is_not_told_as_injected_here_and_keeps_its_files(node: Node) -> None:
    older = node.trainer.folder / "older"
    older.mkdir(parents=True)
    mounts = (Mount("/joulepath", str(node.trainer.folder)),)
    node.injector.synchronized(
        [POD], [Container("sandbox", "webhooks", (f"PYTHONPATH={WEBHOOKS_BOOTSTRAP}",), mounts), TRAINS]
    )
    agent = node.agent()
    assert agent.hear() == CAME
    agent.say("webhooks", "pytorch")
    assert agent.hear() == Done("uid", "pytorch", Outcome.BEFORE)
    assert older.exists()


@pytest.mark.usefixtures("patient")
def test_what_is_known_of_a_container_outlives_a_new_connection_to_the_runtime(node: Node) -> None:
    agent = node.agent()
    node.injector.came(POD)
    agent.hear()
    agent.say("pytorch")
    mounts = Container("sandbox", "pytorch", (), (Mount("/joulepath", "/mine"),))
    assert node.injector.created(POD, mounts) is None
    assert agent.hear() == Done("uid", "pytorch", Outcome.UNSUITED, "The container mounts /joulepath itself.")
    node.injector.synchronized([POD], [mounts])
    node.injector.left(POD)
    assert agent.hear() == Left("uid")


def test_a_pods_second_sandbox_keeps_it_when_the_first_goes(node: Node) -> None:
    agent = node.agent()
    second = Pod("second", "uid", "team", "pod")
    node.injector.came(POD)
    assert agent.hear() == CAME
    node.injector.came(second)
    node.injector.left(POD)
    node.pods.done(Done("uid", "pytorch", Outcome.INJECTED))
    node.injector.left(second)
    node.injector.left(second)
    assert [agent.hear(), agent.hear()] == [Done("uid", "pytorch", Outcome.INJECTED), Left("uid")]


def test_the_newest_agent_is_the_one_and_one_that_says_nonsense_is_hung_up_on(node: Node) -> None:
    node.injector.came(POD)
    first = node.agent()
    first.hear()
    second = node.agent()
    assert second.hear() == CAME
    assert first.hung_up_on()
    second.connection.send(b"nonsense")
    assert second.hung_up_on()
    third = node.agent()
    assert third.hear() == CAME


def test_an_agent_that_does_not_read_costs_the_runtime_nothing(node: Node) -> None:
    deaf = node.agent()
    node.injector.came(POD)
    assert deaf.hear() == CAME
    for _ in range(40_000):
        node.injector.left(POD)
        node.injector.came(POD)
    hearing = node.agent()
    assert hearing.hear() == CAME


def test_a_pod_that_names_no_job_is_told_and_waits_for_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joulepath_injector.injector._LIMIT_S", 3600)
    silent = node.agent()
    node.injector.came(Pod("sandbox", "uid", "team", "pod"))
    assert silent.hear() == Came("uid", "team", "pod")
    assert node.injector.created(Pod("sandbox", "uid", "team", "pod"), TRAINS) is None


def test_an_agent_that_cannot_be_let_in_costs_the_next_one_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.injector.came(POD)

    def start(thread: threading.Thread) -> None:
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert node.agent().hung_up_on()
    assert node.agent().hear() == CAME
