"""The injector and real containerd, 2 and 1.7: what is asked for is there, nothing of ours keeps one from running."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import yaml

from joulepath_injector.nri.frames import NriError
from joulepath_injector.nri.messages import Adjustment, Container, Pod
from joulepath_injector.nri.plugin import Session, connect
from joulepath_injector.words import FOLDER, SOCKET_NAME, Done, Outcome
from real_cluster import CONTAINERD_1, CONTAINERD_2, Cluster, Node, NotYetError, images, other_node, until
from tests.chart.rendering import CHART, ROOT, render, workloads
from tests.injector.agent_double import TRAINS, AgentDouble

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

BUSYBOX: Final = "localhost/joulepath/busybox:1"
PYTHON: Final = "joulepath.local/end-to-end-pythonpath:1"
"""Its ENV PYTHONPATH is /opt/user."""
DOCKERFILE: Final = Path(__file__).parents[1] / "end_to_end/pythonpath_image/Dockerfile"
AGENT: Final = f"joulepath.local/agent:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
PYTHONS: Final = {"distroless": "Dockerfile", "conda": "Dockerfile", "musl": "musl/Dockerfile"}
"""By target: where in python_images."""
BOOTSTRAP: Final = "/joulepath/joulepath_trainer/bootstrap"
SHOW: Final = 'echo "PYTHONPATH=$PYTHONPATH"; ls /joulepath /run/joulepath 2>&1; echo end'
LIMIT_S: Final = 60
ALLOWED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Place:
    """A node, and a namespace at `restricted` whose pods are bound to it."""

    def __init__(self, cluster: Cluster, node: Node, namespace: str) -> None:
        self.cluster, self.node, self.namespace = cluster, node, namespace

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def root(self, path: str) -> Path:
        """A path of the node's, seen from here."""
        return Path(f"/proc/{self.node.pid('namespace')}/root{path}")

    def create(self, *containers: Mapping[str, Any], trains: str = "pytorch", **spec: Any) -> str:
        """A pod whose containers `trains` are to have the trainer; its name."""
        pod = self.pod(*containers, labels={TRAINS: trains}, **spec)
        self.kubectl("create", "--filename", "-", stdin=json.dumps(pod))
        return str(pod["metadata"]["name"])

    def pod(self, *containers: Mapping[str, Any], labels: Mapping[str, str], **spec: Any) -> dict[str, Any]:
        """A pod's manifest."""
        made = [{"securityContext": ALLOWED, "imagePullPolicy": "Never", **one} for one in containers]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{uuid4().hex[:6]}", "labels": dict(labels)},
            "spec": {
                "nodeName": self.node.name,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "containers": made,
                **spec,
            },
        }

    def status(self, pod: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", "pod", pod, "--output", "json")))

    def wait(self, pod: str, phase: str) -> dict[str, Any]:
        """Until a pod is in this phase; the pod."""

        def look() -> None:
            if (now := self.status(pod)["status"])["phase"] != phase:
                raise NotYetError(f"{pod} is {now}")

        until(f"{pod} {phase}", LIMIT_S, look)
        return self.status(pod)

    def said(self, pod: str, container: str = "pytorch", *options: str) -> str:
        return self.kubectl("logs", pod, "--container", container, *options)

    def run(self, *containers: Mapping[str, Any], **more: Any) -> str:
        """A pod that has run to its end; its name."""
        pod = self.create(*containers, **more)
        self.wait(pod, "Succeeded")
        return pod

    @contextlib.contextmanager
    def injector(self, name: str = "injector") -> Iterator[int]:
        """One that serves; its pid."""
        log = self.node.log(name)
        before = log.stat().st_size if log.exists() else 0
        self.node.start(name, [sys.executable, "-m", "joulepath_injector"])
        try:
            until("the injector", LIMIT_S, lambda: "sandboxes are there" in log.read_text()[before:])
            pid = self.node.pid(name)
            assert pid is not None
            yield pid
        finally:
            self.node.stop(name)
            print(log.read_text()[before:])

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """An injector that serves in a pod, as the chart has it: with the node's folders as that mounts them."""
        self.node.load(images.build(ROOT / "Dockerfile", "agent", AGENT))
        pod = workloads(render(self.cluster, "--set", "injection=nri,image.pullPolicy=Never"))["agent"]
        (injector,) = (one for one in pod["containers"] if one["name"] == "injector")
        mounted = {one["name"] for one in injector["volumeMounts"]}
        volumes = [one for one in pod["volumes"] if one["name"] in mounted]
        made = self.pod(injector, labels={}, volumes=volumes, securityContext=pod["securityContext"])
        in_its_namespace = ("--namespace", f"{self.namespace}-system")  # without a level
        self.cluster.kubectl("create", "namespace", in_its_namespace[1])
        try:
            self.cluster.kubectl(*in_its_namespace, "create", "--filename", "-", stdin=json.dumps(made))
            logs = (*in_its_namespace, "logs", made["metadata"]["name"])
            until("the injector", LIMIT_S, lambda: "sandboxes are there" in self.cluster.kubectl(*logs))
            yield
            print(self.cluster.kubectl(*logs))
        finally:
            self.cluster.kubectl("delete", "namespace", in_its_namespace[1], "--wait")

    @contextlib.contextmanager
    def hidden(self, folder: str, mode: str) -> Iterator[None]:
        """Another disk is mounted over a folder of the node, `ro` or `rw`."""
        self.node.nsenter("mount", "--no-mtab", "--types", "tmpfs", "--options", mode, "another", folder)
        try:
            yield
        finally:
            self.node.nsenter("umount", "--no-mtab", "--lazy", folder)

    @contextlib.contextmanager
    def agent(self) -> Iterator[AgentDouble]:
        """One that the injector, which is there, has met."""
        made = AgentDouble(self.root(f"/var/lib/joulepath/{FOLDER}/{SOCKET_NAME}"))
        try:
            until("the agent", LIMIT_S, lambda: made.connected)
            yield made
        finally:
            made.close()

    def folders(self, uid: str) -> list[Path]:
        """Those of a pod's containers."""
        return [*self.root("/run/joulepath/pods").glob(f"{uid}.*")]

    def sessions(self, name: str = "injector") -> int:
        """How often the injector has told of a session with the runtime."""
        return self.node.log(name).read_text().count("sandboxes are there")


@pytest.fixture(scope="module", params=[CONTAINERD_2, CONTAINERD_1])
def place(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Place]:
    name = f"injector-{uuid4().hex[:6]}"
    with other_node(cluster, request.param) as node:
        node.load(images.build(DOCKERFILE, None, PYTHON))
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield Place(cluster, node, name)
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def injector(place: Place) -> Iterator[int]:
    with place.injector() as pid:
        yield pid


@pytest.fixture
def agent(place: Place, injector: int) -> Iterator[AgentDouble]:
    with place.agent() as made:
        yield made


def busybox(name: str = "pytorch", script: str = SHOW, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def wait_done(agent: AgentDouble, pod: str, container: str = "pytorch") -> Done:
    until(f"word of {container} in {pod}", LIMIT_S, lambda: container in agent.done[pod])
    return agent.done[pod][container]


def is_injected(said: str) -> bool:
    return BOOTSTRAP in said and "joulepath_trainer\n" in said


PYTHON_SCRIPT: Final = """
import json, os, subprocess, sys, users_module

def writes(path):
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False

child = subprocess.run([sys.executable, "-c", "import users_module; print(users_module.__file__)"], capture_output=True)
print(json.dumps({
    "path": os.environ["PYTHONPATH"], "socket": os.environ["JOULEPATH_SOCKET"], "greeting": users_module.GREETING,
    "child": child.stdout.decode().strip(), "hook": sys.modules["joulepath_trainer.hook"].__file__,
    "folder": os.listdir("/run/joulepath"),
    "writes": [path for path in ("/joulepath/x", "/run/joulepath/x", sys.modules["joulepath_trainer.hook"].__file__)
               if writes(path)],
}))
"""


def test_a_restricted_pod_on_a_read_only_root_trains_with_its_images_own_python_path(
    place: Place, agent: AgentDouble
) -> None:
    pod = place.run({"name": "pytorch", "image": PYTHON, "command": ["python3", "-c", PYTHON_SCRIPT]})
    assert json.loads(place.said(pod)) == {
        "path": f"{BOOTSTRAP}:/opt/user",
        "socket": "/run/joulepath/agent.sock",
        "greeting": "hello from the image's own PYTHONPATH",
        "child": "/opt/user/users_module.py",
        "hook": "/joulepath/joulepath_trainer/hook.py",
        "folder": [],
        "writes": [],
    }
    assert wait_done(agent, pod).outcome is Outcome.INJECTED


INTERPRETER: Final = """
import json, os, sys
print(json.dumps({
    "hook": "joulepath_trainer.hook" in sys.modules,
    "path": [one for one in sys.path if "joulepath" not in one],
    "prefix": sys.prefix,
    "flags": str(sys.flags),
    "libc": [line.split()[-1] for line in open("/proc/self/maps") if "ld-" in line][:1],
    "shell": os.path.exists("/bin/sh"),
}))
"""


def interpreter(place: Place, image: str, *options: str, trains: str = "pytorch", **more: Any) -> dict[str, Any]:
    """What a Python says of itself, in an image of ours."""
    tag = f"joulepath.local/injector-{image}:1"
    place.node.load(images.build(Path(__file__).parent / "python_images" / PYTHONS[image], image, tag))
    made = {"name": "pytorch", "image": tag, "command": ["python3", *options, "-c", INTERPRETER], **more}
    return dict(json.loads(place.said(place.run(made, trains=trains))))


@pytest.mark.parametrize("image", PYTHONS)
def test_a_python_without_a_shell_or_of_another_prefix_or_libc_has_the_trainer_and_is_otherwise_the_same(
    place: Place, agent: AgentDouble, image: str
) -> None:
    without, having = (interpreter(place, image, trains=trains) for trains in ("", "pytorch"))
    assert having == {**without, "hook": True}
    assert not without["hook"]
    assert not without["shell"]
    assert without["prefix"] == ("/usr" if image == "distroless" else f"/opt/{image}")
    assert ("musl" in without["libc"][0]) is (image == "musl")


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_a_python_that_is_isolated_is_not_observed_and_runs_as_without_us(
    place: Place, agent: AgentDouble, option: str
) -> None:
    without, having = (interpreter(place, "distroless", option, trains=trains) for trains in ("", "pytorch"))
    assert having == without
    assert not having["hook"]


def test_a_python_path_of_the_pods_stays_behind_ours_by_value_and_by_reference(
    place: Place, agent: AgentDouble
) -> None:
    place.kubectl("create", "configmap", "paths", "--from-literal=path=/from/a/reference")
    reference = {"configMapKeyRef": {"name": "paths", "key": "path"}}
    for own, path in (({"value": "/from/a/value"}, "/from/a/value"), ({"valueFrom": reference}, "/from/a/reference")):
        pod = place.run(busybox(env=[{"name": "PYTHONPATH", **own}]))
        assert f"PYTHONPATH={BOOTSTRAP}:{path}\n" in place.said(pod)


def test_a_python_path_of_both_the_image_and_the_pod_stays_as_it_is_and_the_agent_hears_why(
    place: Place, agent: AgentDouble
) -> None:
    both = {"name": "pytorch", "image": PYTHON, "command": ["sh", "-c", SHOW]}
    pod = place.run({**both, "env": [{"name": "PYTHONPATH", "value": "/of/the/pod"}]})
    assert "PYTHONPATH=/of/the/pod\n" in place.said(pod)
    assert wait_done(agent, pod).why.startswith("Both image and pod set PYTHONPATH")


def test_only_what_is_named_gets_the_trainer_and_several_may(place: Place, agent: AgentDouble) -> None:
    pod = place.run(
        busybox(),
        busybox("second"),
        busybox("sidecar"),
        initContainers=[{**busybox("before"), "securityContext": ALLOWED}],
        trains="pytorch_second",
    )
    told = {name: is_injected(place.said(pod, name)) for name in ("before", "pytorch", "second", "sidecar")}
    assert told == {"before": False, "pytorch": True, "second": True, "sidecar": False}
    assert wait_done(agent, pod, "second").outcome is Outcome.INJECTED


def test_a_container_that_is_started_anew_has_it_again(place: Place, agent: AgentDouble) -> None:
    script = f"{SHOW}; test -e /kept/once || {{ touch /kept/once; exit 1; }}"
    kept = {"volumes": [{"name": "kept", "emptyDir": {}}], "restartPolicy": "OnFailure"}
    pod = place.run(busybox(script=script, volumeMounts=[{"name": "kept", "mountPath": "/kept"}]), **kept)
    assert is_injected(place.said(pod))
    assert place.status(pod)["status"]["containerStatuses"][0]["restartCount"] == 1


def test_a_pods_folder_goes_with_the_pod(place: Place, agent: AgentDouble) -> None:
    pod = place.create(busybox(script="sleep 3600"))
    uid = place.wait(pod, "Running")["metadata"]["uid"]
    assert place.folders(uid)
    place.kubectl("delete", "pod", pod, "--wait")
    until("the end of its folder", LIMIT_S, lambda: not place.folders(uid))
    until("word of it", LIMIT_S, lambda: pod in agent.left)


def test_a_containers_folder_goes_with_it_while_others_of_its_pod_go_on(place: Place, agent: AgentDouble) -> None:
    ended = busybox(script="until [ -e /kept/end ]; do sleep 0.1; done")
    ended["volumeMounts"] = [{"name": "kept", "mountPath": "/kept"}]
    goes_on = {**ended, "name": "second", "command": ["sleep", "3600"]}
    volume = {"volumes": [{"name": "kept", "emptyDir": {}}]}
    pod = place.create(ended, goes_on, trains="pytorch_second", **volume)
    uid = place.wait(pod, "Running")["metadata"]["uid"]
    until("both folders", LIMIT_S, lambda: len(place.folders(uid)) == 2)
    place.kubectl("exec", pod, "--container", "second", "--", "touch", "/kept/end")
    until("the end of one", LIMIT_S, lambda: len(place.folders(uid)) == 1)
    statuses = {one["name"]: one for one in place.status(pod)["status"]["containerStatuses"]}
    left = statuses["second"]["containerID"].removeprefix("containerd://")
    assert [one.name for one in place.folders(uid)] == [f"{uid}.{left[:16]}"]
    place.kubectl("delete", "pod", pod, "--wait=false")


def test_a_container_whose_processes_stand_still_loses_its_folder_once_the_kubelet_has_stopped_it(
    place: Place, agent: AgentDouble
) -> None:
    look = {"exec": {"command": ["test", "!", "-e", "/kept/hangs"]}, "periodSeconds": 1, "failureThreshold": 1}
    kept: dict[str, Any] = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    hangs = busybox(script="sleep 3600 & kill -STOP $!; wait", livenessProbe=look, **kept)
    pod = place.create(
        hangs,
        busybox("second", "sleep 3600", **kept),
        volumes=[{"name": "kept", "emptyDir": {}}],
        terminationGracePeriodSeconds=1,
    )
    uid = place.wait(pod, "Running")["metadata"]["uid"]
    assert len(place.folders(uid)) == 1
    place.kubectl("exec", pod, "--container", "second", "--", "touch", "/kept/hangs")
    until("the end of its folder", LIMIT_S, lambda: not place.folders(uid))
    assert place.status(pod)["status"]["phase"] == "Running"
    place.kubectl("delete", "pod", pod, "--wait=false")


def specification(place: Place, pod: str) -> str:
    """What the runtime was asked to run, without what differs from pod to pod."""
    found = place.status(pod)
    (container,) = found["status"]["containerStatuses"]
    info = json.loads(place.node.ctr("containers", "info", container["containerID"].removeprefix("containerd://")))
    info["Spec"]["process"]["env"].sort()  # the kubelet names services in any order
    text = json.dumps(info["Spec"], indent=1, sort_keys=True)
    for name, pattern in {
        pod: re.escape(pod),
        "UID": re.escape(found["metadata"]["uid"]),
        "ID": r"[0-9a-f]{64}",
        "FILE": r"(?<=pytorch/)[0-9a-f]{8}",
        "/proc/PID": r"/proc/\d+",
    }.items():
        text = re.sub(pattern, "POD" if name == pod else name, text)
    return text


def test_a_container_that_is_not_named_is_byte_for_byte_what_it_is_without_a_plugin(place: Place) -> None:
    without = place.run(busybox(), trains="")
    with place.injector(), place.agent():
        beside = place.run(busybox(), trains="")
        named = place.run(busybox())
    assert specification(place, beside) == specification(place, without)
    assert specification(place, named) != specification(place, without)


def test_a_container_that_mounts_something_in_our_place_runs_as_it_is_and_says_why(
    place: Place, agent: AgentDouble
) -> None:
    volume = {"volumes": [{"name": "mine", "emptyDir": {}}]}
    pod = place.run(busybox(volumeMounts=[{"name": "mine", "mountPath": "/joulepath"}]), **volume)
    assert BOOTSTRAP not in place.said(pod)
    done = wait_done(agent, pod)
    assert (done.outcome, done.why) == (Outcome.UNSUITED, "The container mounts /joulepath itself.")


def test_what_another_disk_hides_on_the_node_keeps_no_container_from_starting(place: Place) -> None:
    with place.installed(), place.agent() as agent:
        for folder in ("/var/lib/joulepath", "/var/lib/joulepath/trainer", "/run/joulepath"):
            assert is_injected(place.said(place.run(busybox())))
            with place.hidden(folder, "ro"):
                pod = place.run(busybox())
                assert not is_injected(place.said(pod))
                done = wait_done(agent, pod)
                assert done.outcome is Outcome.UNSUITED
                assert re.match("The node has no files for it: .*Read-only file system", done.why)
            with place.hidden(folder, "rw"):  # what is missing is put there
                assert is_injected(place.said(place.run(busybox())))


def test_an_agent_that_is_silent_costs_a_pod_the_trainer_and_no_more(place: Place, agent: AgentDouble) -> None:
    agent.speaks.clear()
    pod = place.create(busybox(script=f"{SHOW}; sleep 3600"))
    place.wait(pod, "Running")
    agent.speaks.set()
    assert wait_done(agent, pod).outcome is Outcome.LATE
    assert not is_injected(place.said(pod))
    assert is_injected(place.said(place.run(busybox())))


def test_without_an_agent_pods_run_as_they_are_and_one_that_comes_later_hears_of_them(
    place: Place, injector: int
) -> None:
    pod = place.create(busybox(script=f"{SHOW}; sleep 3600"))
    place.wait(pod, "Running")
    assert not is_injected(place.said(pod))
    with place.agent() as agent:
        assert wait_done(agent, pod).outcome is Outcome.LATE
        assert is_injected(place.said(place.run(busybox())))


def test_an_injector_that_is_killed_keeps_nothing_from_running_and_the_next_one_goes_on(place: Place) -> None:
    path = place.root(f"/var/lib/joulepath/{FOLDER}/{SOCKET_NAME}")
    agent = AgentDouble(path)
    try:
        with place.injector() as pid:
            until("the agent", LIMIT_S, lambda: agent.connected)
            injected = place.create(busybox(script="sleep 3600"))
            place.wait(injected, "Running")
            assert wait_done(agent, injected).outcome is Outcome.INJECTED
            os.kill(pid, signal.SIGKILL)
            meanwhile = place.create(busybox(script=f"{SHOW}; sleep 3600"))
            place.wait(meanwhile, "Running")
            assert not is_injected(place.said(meanwhile))
        agent.done.clear()
        with place.injector():
            assert wait_done(agent, injected).outcome is Outcome.INJECTED
            assert wait_done(agent, meanwhile).outcome is Outcome.BEFORE
            assert is_injected(place.said(place.run(busybox())))
            files = place.kubectl("exec", injected, "--", "ls", "/joulepath/joulepath_trainer")
            assert "hook.py" in files
    finally:
        agent.close()


def test_an_injector_that_is_stopped_costs_one_pod_a_time_out_and_connects_anew(
    place: Place, injector: int, agent: AgentDouble
) -> None:
    sessions = place.sessions()
    os.kill(injector, signal.SIGSTOP)
    try:
        for which in ("first", "second"):
            begun_s = time.monotonic()
            assert not is_injected(place.said(place.run(busybox())))
            print(f"the {which} pod with a stopped injector took {time.monotonic() - begun_s:.1f} s")
    finally:
        os.kill(injector, signal.SIGCONT)
    until("the next session", LIMIT_S, lambda: place.sessions() > sessions)
    begun_s = time.monotonic()
    assert is_injected(place.said(place.run(busybox())))
    print(f"a pod with the trainer took {time.monotonic() - begun_s:.1f} s")


def test_a_runtime_that_is_started_anew_has_its_plugin_again(place: Place, injector: int, agent: AgentDouble) -> None:
    running = place.create(busybox(script="sleep 3600"))
    place.wait(running, "Running")
    assert wait_done(agent, running).outcome is Outcome.INJECTED
    sessions = place.sessions()
    place.node.stop("containerd")
    place.node.up((), lambda: None)
    until("the next session", LIMIT_S, lambda: place.sessions() > sessions)
    assert is_injected(place.said(place.run(busybox())))
    assert agent.done[running]["pytorch"].outcome is Outcome.INJECTED
    assert "hook.py" in place.kubectl("exec", running, "--", "ls", "/joulepath/joulepath_trainer")


def test_a_second_injector_waits_until_the_first_one_has_ended(place: Place, injector: int) -> None:
    log = place.node.log("injector-2")
    before = log.stat().st_size if log.exists() else 0
    place.node.start("injector-2", [sys.executable, "-m", "joulepath_injector"])
    try:
        until("the second one", LIMIT_S, lambda: "waiting for it to end" in log.read_text()[before:])
        assert "sandboxes are there" not in log.read_text()[before:]
        os.kill(injector, signal.SIGTERM)
        until("its turn", LIMIT_S, lambda: "sandboxes are there" in log.read_text()[before:])
    finally:
        place.node.stop("injector-2")


class Nonsense(Session):
    """A plugin that goes wrong when it is asked about a container."""

    def __init__(self, trunk: socket.socket, goes_wrong: Callable[[socket.socket], object]) -> None:
        super().__init__(trunk, Silent())
        self._connection, self._goes_wrong = trunk, goes_wrong
        self.asked = 0

    def answer(self, body: bytes) -> bytes:
        if b"CreateContainer" in body:
            self.asked += 1
            self._goes_wrong(self._connection)
        return super().answer(body)


class Silent:
    """A plugin that wants nothing."""

    def synchronized(self, pods: Sequence[Pod], containers: Sequence[Container]) -> None:
        """It knows nothing."""

    def came(self, pod: Pod) -> None:
        """It does nothing."""

    def left(self, pod: Pod) -> None:
        """It does nothing."""

    def created(self, pod: Pod, container: Container) -> Adjustment | None:
        """It wants nothing."""

    def stopped(self, pod: Pod, container: Container) -> None:
        """It does nothing."""


@pytest.mark.parametrize(
    "goes_wrong",
    [
        lambda trunk: trunk.sendall(bytes(range(255, 0, -1)) * 40),
        lambda trunk: trunk.sendall(b"\0\0\0\1\0\0\0\12" + b"\xff" * 10),
        lambda trunk: trunk.shutdown(socket.SHUT_RDWR),
    ],
    ids=["bytes that are no frame", "a frame that is no message", "the end"],
)
def test_a_plugin_that_says_nonsense_in_the_place_of_an_answer_keeps_nothing_from_running(
    place: Place, goes_wrong: Callable[[socket.socket], object]
) -> None:
    with connect(place.root("/run/nri/nri.sock")) as trunk:
        session = Nonsense(trunk, goes_wrong)

        def serve() -> None:
            with contextlib.suppress(NriError, OSError):
                session.serve()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            until("its question", LIMIT_S, lambda: place.run(busybox()) and session.asked > 0)
            place.run(busybox())
        finally:
            with contextlib.suppress(OSError):
                trunk.shutdown(socket.SHUT_RDWR)
            thread.join(30)
