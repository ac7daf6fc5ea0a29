"""The runtime's questions: each is answered well, whatever happens in the plugin."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_injector.nri.frames import NriError
from joulepath_injector.nri.messages import TYPES, Adjustment, Container, Mount, Pod
from joulepath_injector.nri.plugin import Session
from joulepath_injector.words import MOST_BYTES, Came, encode
from joulepath_rules import JOB_LABELS
from tests.injector.runtime_double import RuntimeDouble, container, pod

JOB = JOB_LABELS[0]
RUN, STOP, REMOVE, CREATE, STOP_CONTAINER = 1, 2, 3, 4, 10
METHODS = [
    "Configure",
    "Synchronize",
    "RunPodSandbox",
    "StateChange",
    "CreateContainer",
    "StopContainer",
    "Shutdown",
    "Unheard",
]


class Recorder:
    """A plugin that notes what it is told."""

    def __init__(self) -> None:
        self.told = list[Any]()
        self.containers: Sequence[Container] = ()
        self.adjustment: Adjustment | None = None
        self.fails = False

    def synchronized(self, pods: Sequence[Pod], containers: Sequence[Container]) -> None:
        self.containers = containers
        self.told.append(("synchronized", [one.uid for one in pods], [one.name for one in containers]))

    def came(self, pod: Pod) -> None:
        self.told.append(("came", pod.uid))

    def left(self, pod: Pod) -> None:
        self.told.append(("left", pod.uid))

    def created(self, pod: Pod, container: Container) -> Adjustment | None:
        self.told.append((pod, container))
        if self.fails:
            raise RuntimeError("a failure of ours")
        return self.adjustment

    def stopped(self, pod: Pod, container: Container) -> None:
        self.told.append(("stopped", pod.uid, container.id))
        if self.fails:
            raise RuntimeError("a failure of ours")


@pytest.fixture
def plugin() -> Recorder:
    return Recorder()


@pytest.fixture
def runtime(plugin: Recorder) -> Iterator[RuntimeDouble]:
    ours, theirs = socket.socketpair()
    ended = list[str]()

    def serve() -> None:
        with pytest.raises(NriError) as said:
            Session(ours, plugin).serve()
        ended.append(str(said.value))

    thread = threading.Thread(target=serve)
    thread.start()
    double = RuntimeDouble(theirs)
    double.registered()
    yield double
    theirs.close()
    thread.join(30)
    ours.close()
    assert ended == ["the runtime has closed the connection"]


def test_it_subscribes_to_sandboxes_and_to_begin_and_end_of_containers_alone(runtime: RuntimeDouble) -> None:
    asked = TYPES["ConfigureRequest"](runtime_name="containerd", runtime_version="v2").SerializeToString()
    events = TYPES["ConfigureResponse"].FromString(runtime.call("Configure", asked)).events
    assert [event for event in range(1, 32) if events >> (event - 1) & 1] == [RUN, STOP, REMOVE, CREATE, STOP_CONTAINER]


def test_what_is_there_is_told_once_however_many_messages_it_takes(runtime: RuntimeDouble, plugin: Recorder) -> None:
    for more in (True, True, False):
        part = TYPES["SynchronizeRequest"](pods=[pod()], containers=[container()], more=more).SerializeToString()
        assert TYPES["SynchronizeResponse"].FromString(runtime.call("Synchronize", part)).more is more
    assert plugin.told == [("synchronized", ["uid"] * 3, ["pytorch"] * 3)]


@pytest.mark.parametrize(("event", "method", "told"), [
    (RUN, "RunPodSandbox", [("came", "uid")]),
    (STOP, "StopPodSandbox", [("left", "uid")]),
    (REMOVE, "RemovePodSandbox", [("left", "uid")]),
    (8, "StartContainer", []),
])  # fmt: skip
def test_sandboxes_come_and_go_by_calls_of_today_and_of_older_runtimes(
    runtime: RuntimeDouble, plugin: Recorder, event: int, method: str, told: list[object]
) -> None:
    assert runtime.call(method, TYPES["PodSandboxRequest"](pod=pod()).SerializeToString()) == b""
    assert runtime.call("StateChange", TYPES["StateChangeEvent"](event=event, pod=pod()).SerializeToString()) == b""
    assert plugin.told == told * 2


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_container_is_told_and_changes_nothing(
    runtime: RuntimeDouble, plugin: Recorder, fails: bool
) -> None:
    plugin.fails = fails
    told = TYPES["ContainerRequest"](pod=pod(), container=container(id="an-id"))
    assert runtime.call("StopContainer", told.SerializeToString()) == b""
    assert plugin.told == [("stopped", "uid", "an-id")]


def test_what_containerd_really_says_of_a_pod_and_its_container_is_read(
    runtime: RuntimeDouble, plugin: Recorder
) -> None:
    """Recorded: a pod of a Python image with ENV PYTHONPATH, on a node of the real cluster (its folders renamed)."""
    recorded = json.loads(Path(__file__).with_name("data").joinpath("containerd-2.4.2.json").read_text())
    for method in ("Configure", "RunPodSandbox", "CreateContainer", "StopPodSandbox"):
        request = TYPES["Request"].FromString(b64decode(recorded[method]))
        assert request.method == method
        runtime.call(method, request.payload)
    came, (pod, container), left = plugin.told
    assert (came, left) == (("came", pod.uid), ("left", pod.uid))
    assert (pod.namespace, pod.labels, container.name) == ("default", {}, "pytorch")
    assert len(pod.uid) == 36
    assert container.sandbox == pod.sandbox
    assert container.env == ("PYTHONPATH=/opt/user",)
    assert container.mounts == ()
    assert not pod.user_namespace
    assert not container.user_namespace


def ask(runtime: RuntimeDouble) -> bytes:
    user = {"namespaces": [{"type": "user"}]}
    mounts = [{"destination": place, "source": "/node"} for place in ("/data", "/var/run/joulepath")]
    made = container(env=["A=1", "PYTHONPATH=/own", "PYTHONPATHS=2"], mounts=mounts, linux=user)
    labels = [{"key": key, "value": "gpt"} for key in ("app", JOB)]
    asked = TYPES["ContainerRequest"](pod=pod(labels=labels), container=made)
    return runtime.call("CreateContainer", asked.SerializeToString())


def test_a_container_gets_what_the_plugin_says_read_only_and_in_the_place_of_its_own(
    runtime: RuntimeDouble, plugin: Recorder
) -> None:
    plugin.adjustment = Adjustment((Mount("/joulepath", "/files"),), {"PYTHONPATH": "/joulepath:/own"})
    adjust = TYPES["CreateContainerResponse"].FromString(ask(runtime)).adjust
    asked_of = Pod("sandbox", "uid", "team", "pod", {JOB: "gpt"})
    mounts = (Mount("/run/joulepath", "/node"),)
    made = Container("sandbox", "pytorch", ("PYTHONPATH=/own",), mounts, user_namespace=True)
    assert plugin.told == [(asked_of, made)]
    (mount,) = adjust.mounts
    assert (mount.destination, mount.source, mount.type) == ("/joulepath", "/files", "bind")
    assert {"ro", "nosuid", "nodev", "rprivate"} <= set(mount.options)
    assert [(one.key, one.value) for one in adjust.env] == [("-PYTHONPATH", ""), ("PYTHONPATH", "/joulepath:/own")]


def test_what_nobody_looks_at_is_not_kept_and_what_is_kept_is_short(runtime: RuntimeDouble, plugin: Recorder) -> None:
    long = "x" * 60_000
    env = [f"A={long}", *[f"PYTHONPATH={long}"] * 9]
    mounts = [{"destination": f"{place}/{long}", "source": long} for place in ("/data", *["/run/joulepath"] * 9)]
    labels = [{"key": f"label-{number}", "value": "x" * 60} for number in range(2000)] + [{"key": JOB, "value": long}]
    large, named = container(long, env=env, mounts=mounts), pod(long, long, labels=labels)
    named.namespace = named.name = long
    told = TYPES["SynchronizeRequest"](pods=[named], containers=[large]).SerializeToString()
    runtime.call("Synchronize", told)
    asked = TYPES["ContainerRequest"](pod=named, container=large).SerializeToString()
    runtime.call("CreateContainer", asked)
    (made_pod, made), there = plugin.told[1], plugin.containers[0]
    assert made_pod.labels == {JOB: "x" * 253}
    assert len(repr(made_pod)) < 2000
    assert made.env == (f"PYTHONPATH={long}",) * 2
    assert len(repr(replace(made, env=()))) < 10_000
    assert len(repr(there)) < 10_000
    assert len(repr(there.env)) < 1000
    assert len(encode(Came(made_pod.uid, made_pod.namespace, made_pod.name, made_pod.labels))) < MOST_BYTES


def test_nothing_to_add_is_an_empty_answer(runtime: RuntimeDouble) -> None:
    assert ask(runtime) == b""


def test_a_failure_of_ours_is_an_empty_answer(runtime: RuntimeDouble, plugin: Recorder) -> None:
    plugin.fails = True
    assert ask(runtime) == b""
    plugin.fails, plugin.adjustment = False, Adjustment((), {"A": "2"})
    assert ask(runtime)


def test_whoever_is_refused_is_told_why() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        double = threading.Thread(target=lambda: RuntimeDouble(theirs).registered(code=3))
        double.start()
        with pytest.raises(NriError, match=r"refuses the plugin: refused \(code 3\)"):
            Session(ours, Recorder()).serve()
        double.join(30)


@given(method=st.sampled_from(METHODS), body=st.binary(max_size=100), garbage=st.binary(max_size=100))
def test_nonsense_is_answered_and_raises_nothing(method: str, body: bytes, garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session = Session(ours, Recorder())
        session.answer(garbage)
        session.answer(TYPES["Request"](method=method, payload=body).SerializeToString())
