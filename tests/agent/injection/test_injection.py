"""What the injector is answered: an injector at a real socket, a kubelet (gRPC) and an API server (HTTP) beside it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.injection.admission import Admission
from joulepath_agent.injection.client import Client
from joulepath_agent.injection.jobs import Jobs
from joulepath_agent.injection.registry import Registry, ToldPods
from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.ownership import ClusterPods
from joulepath_agent.peers.podresources import TYPES, held_devices
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_crds import INJECTOR_ABSENT, INJECTOR_READY, INJECTOR_UNHEARD, INJECTOR_UNTOLD, MOST_INJECTIONS
from joulepath_injector.words import NO_SOCKET, Answer, Came, Done, Left, Outcome, Runtime
from tests.agent.cluster.api_double import ApiDouble, api_double
from tests.agent.injection.injector_double import InjectorDouble, injector_double
from tests.agent.peers.kubelet_double import kubelet_double
from tests.agent.room import wait_until

GPUS = tuple(NodeGpu(f"GPU-{number}", number, number, mig=False) for number in range(8))
LABELS = {"training.kubeflow.org/job-name": "job"}
POD = Came("uid-0", "ns", "pod-0", LABELS)
JOB = "/apis/kubeflow.org/v1/namespaces/ns/pytorchjobs/job"
WANTED = {"joulepath.dev/energy-plan": "plan"}


class Node:
    """The wing with all that it talks to."""

    def __init__(self, folder: Path, api: ApiDouble, stack: ExitStack) -> None:
        self.api = api
        self.folder = folder
        self.held: dict[str, dict[str, tuple[str, ...]]] = {"pod-0": {"pytorch": ("GPU-0",), "sidecar": ()}}
        """Devices by pod and container."""
        self.gpus = GPUS
        self.chosen = True
        self.registry = Registry()
        self._stack = stack
        self.kubelet = folder / "kubelet.sock"
        cluster = NodeApi(api.connection, "node", "joulepath")
        self.jobs = Jobs(cluster.read_job)
        self._client = Client(folder, self.registry, lambda: self.chosen)
        held = partial(held_devices, self.kubelet)
        admission = Admission(self.registry, self.jobs, held, lambda: self.gpus, self._client.say)
        for part in (self.jobs, admission, self._client):
            stack.callback(part.stop)
        self._client.start(admission)

    def start_kubelet(self) -> None:
        """It is there from now on."""
        self._stack.enter_context(kubelet_double(self.kubelet, self._answer))

    def injector(self) -> InjectorDouble:
        """An injector that the agent has come to."""
        made = self._stack.enter_context(injector_double(self.folder))
        made.meet()
        return made

    def _answer(self) -> bytes:
        def containers(of: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
            devices = {name: [{"resource_name": "nvidia.com/gpu", "device_ids": ids}] for name, ids in of.items()}
            return [{"name": name, "devices": given} for name, given in devices.items()]

        pods = [{"name": name, "namespace": "ns", "containers": containers(of)} for name, of in self.held.items()]
        whole: bytes = TYPES["ListPodResourcesResponse"](pod_resources=pods).SerializeToString()
        return whole


@pytest.fixture
def bare() -> Iterator[Node]:
    """Without a kubelet."""
    with tempfile.TemporaryDirectory() as folder, api_double() as api, ExitStack() as stack:
        api.jobs[JOB] = WANTED
        yield Node(Path(folder), api, stack)


@pytest.fixture
def node(bare: Node) -> Node:
    bare.start_kubelet()
    return bare


# answers


def test_the_containers_that_hold_gpus_get_the_trainer(node: Node) -> None:
    node.held["pod-0"] = {"a": ("GPU-0", "GPU-1"), "sidecar": (), "b": ("nvidia2",), "c": ("fpga-7",)}
    injector = node.injector()
    injector.tell(POD)
    assert injector.hear() == Answer("uid-0", ("a", "b"))


def test_of_a_job_its_metadata_alone_is_read(node: Node) -> None:
    injector = node.injector()
    injector.tell(POD)
    injector.hear()
    assert node.api.job_reads == [(JOB, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")]


@pytest.mark.parametrize(
    ("pod", "jobs"),
    [
        (replace(POD, labels={}), {JOB: WANTED}),
        (replace(POD, labels={"training.kubeflow.org/job-name": "../../secrets"}), {JOB: WANTED}),
        (replace(POD, labels={"training.kubeflow.org/job-name": "other"}), {JOB: WANTED}),
        (replace(POD, namespace="elsewhere"), {JOB: WANTED}),
        (POD, {JOB: {}}),
        (POD, {JOB: {"somebody.example/energy-plan": "plan"}}),
    ],
    ids=["no label", "a label that is no name", "another job", "another namespace", "no annotation", "another one"],
)
def test_pods_that_do_not_ask_for_it_get_none(node: Node, pod: Came, jobs: dict[str, dict[str, str]]) -> None:
    node.api.jobs = jobs
    injector = node.injector()
    injector.tell(pod)
    assert injector.hear() == Answer("uid-0")


def test_a_pod_without_a_gpu_gets_none_and_asks_no_api_server(node: Node) -> None:
    node.held = {"pod-0": {"pytorch": ()}, "pod-1": {"pytorch": ("GPU-0",)}}
    node.api.job_reads_hang.clear()
    injector = node.injector()
    injector.tell(POD)
    assert injector.hear() == Answer("uid-0")
    assert node.api.job_reads == []


PLAIN = {"batch.kubernetes.io/job-name": "set-part-0"}
OF_A_SET = {**PLAIN, "jobset.sigs.k8s.io/jobset-name": "set"}
PLAIN_JOB = "/apis/batch/v1/namespaces/ns/jobs/set-part-0"
JOB_SET = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/ns/jobsets/set"
TRAIN_JOB = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ns/trainjobs/train"
BY_TRAIN_JOB = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "name": "train", "uid": "uid-train"}


@pytest.mark.parametrize(
    ("labels", "jobs", "made_by", "topmost"),
    [
        (PLAIN, {PLAIN_JOB: WANTED}, {}, "set-part-0"),
        (OF_A_SET, {JOB_SET: WANTED, PLAIN_JOB: {}}, {}, "set"),
        (OF_A_SET, {TRAIN_JOB: WANTED, JOB_SET: {}}, {JOB_SET: BY_TRAIN_JOB}, "train"),
    ],
    ids=["Job", "JobSet", "TrainJob"],
)
def test_a_pod_is_of_the_topmost_job_and_asks_by_the_annotation_of_that(
    node: Node, labels: dict[str, str], jobs: dict[str, Any], made_by: dict[str, Any], topmost: str
) -> None:
    node.api.jobs, node.api.made_by = jobs, made_by
    injector = node.injector()
    injector.tell(replace(POD, labels=labels))
    assert injector.hear() == Answer("uid-0", ("pytorch",))
    assert (located(node).job, located(node).job_uid) == (topmost, f"uid-{topmost}")


@pytest.mark.parametrize(
    "jobs", [{JOB_SET: WANTED, TRAIN_JOB: {}}, {JOB_SET: WANTED}], ids=["not annotated", "not there"]
)
def test_the_annotation_of_what_a_job_has_made_counts_for_nothing(node: Node, jobs: dict[str, Any]) -> None:
    node.api.jobs, node.api.made_by = jobs, {JOB_SET: BY_TRAIN_JOB}
    injector = node.injector()
    injector.tell(replace(POD, labels=OF_A_SET))
    assert injector.hear() == Answer("uid-0")


def test_a_job_of_another_uid_than_its_set_names_has_not_made_it(node: Node) -> None:
    node.api.jobs, node.api.made_by = {JOB_SET: {}, TRAIN_JOB: WANTED}, {JOB_SET: {**BY_TRAIN_JOB, "uid": "before"}}
    injector = node.injector()
    injector.tell(replace(POD, labels=OF_A_SET))
    assert injector.hear() == Answer("uid-0")


def test_the_pods_of_one_job_cost_the_api_server_one_read(node: Node) -> None:
    node.api.job_reads_hang.clear()
    node.held = {f"pod-{number}": {"pytorch": (f"GPU-{number}",)} for number in range(8)}
    injector = node.injector()
    injector.tell(*(Came(f"uid-{number}", "ns", f"pod-{number}", LABELS) for number in range(8)))
    wait_until(lambda: bool(node.api.job_reads), "it is asked")
    node.api.job_reads_hang.set()
    answers = {injector.hear() for _ in range(8)}
    assert answers == {Answer(f"uid-{number}", ("pytorch",)) for number in range(8)}
    assert len(node.api.job_reads) == 1


def test_who_cannot_be_asked_is_asked_again(bare: Node) -> None:
    bare.api.job_reads_fail = True
    injector = bare.injector()
    injector.tell(POD)
    assert injector.hear() == Answer("uid-0", final=False), "neither kubelet nor API server"
    bare.start_kubelet()
    assert injector.hear() == Answer("uid-0", final=False), "no API server"
    bare.api.job_reads_fail = False
    while not (answer := injector.hear()).final:
        assert answer == Answer("uid-0", final=False)
    assert answer == Answer("uid-0", ("pytorch",))
    assert injector.hears_nothing(1.0)


def test_who_cannot_be_asked_for_long_is_asked_on_while_the_pod_is_there(
    bare: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("joulepath_agent.injection.admission._PAUSES_S", (0.01, 0.01))
    injector = bare.injector()
    injector.tell(POD)
    assert {injector.hear() for _ in range(6)} == {Answer("uid-0", final=False)}
    assert sum("gets no trainer as yet" in line for line in caplog.messages) == 1
    bare.start_kubelet()
    while not (answer := injector.hear()).final:
        pass
    assert answer == Answer("uid-0", ("pytorch",))
    assert injector.hears_nothing(0.5)


def test_before_any_gpu_is_known_nothing_is_final(node: Node) -> None:
    node.gpus = ()
    injector = node.injector()
    injector.tell(POD)
    assert not injector.hear().final
    node.gpus = GPUS
    while not (answer := injector.hear()).final:
        pass
    assert answer.containers == ("pytorch",)


def test_a_pod_that_is_gone_is_not_asked_for_again(bare: Node) -> None:
    injector = bare.injector()
    injector.tell(POD, Left("uid-0"))
    assert not injector.hear().final
    assert injector.hears_nothing(1.0)


def test_an_api_server_that_hangs_keeps_no_other_pod_waiting(node: Node) -> None:
    node.api.job_reads_hang.clear()
    injector = node.injector()
    injector.tell(POD, replace(POD, uid="uid-1", name="pod-1", labels={}))
    assert injector.hear() == Answer("uid-1")
    node.api.job_reads_hang.set()
    while not (answer := injector.hear()).final:
        pass
    assert answer == Answer("uid-0", ("pytorch",))


# the connection


def test_an_injector_that_comes_again_is_answered_again_and_what_is_gone_is_forgotten(node: Node) -> None:
    with injector_double(node.folder) as first:
        first.meet()
        first.tell(POD, replace(POD, uid="uid-1", name="pod-1"))
        assert {first.hear().uid, first.hear().uid} == {"uid-0", "uid-1"}
        first.tell(Done("uid-0", "pytorch", Outcome.INJECTED), Done("uid-1", "pytorch", Outcome.LATE))
        wait_until(lambda: len(node.registry.report()) == 2, "both are told")
    second = node.injector()
    second.tell(POD)
    assert second.hear() == Answer("uid-0", ("pytorch",))
    assert [one.pod for one in node.registry.report()] == ["pod-0"], "what became of it is still known"
    assert node.registry.named("ns", "pod-1") is None


@pytest.mark.parametrize(
    "packet", [b"nonsense", b"{}", b'{"word": "Came", "uid": 7}', b'{"word": "Answer", "uid": "x"}', b"\xff" * 64]
)
def test_after_nonsense_it_comes_anew(node: Node, packet: bytes) -> None:
    injector = node.injector()
    injector.tell(packet)
    injector.meet()
    injector.tell(POD)
    assert injector.hear().containers == ("pytorch",)


def test_only_the_agent_that_the_clocks_serve_comes(node: Node) -> None:
    node.chosen = False
    with injector_double(node.folder) as injector:
        waiting = threading.Thread(target=injector.meet)
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        node.chosen = True
        waiting.join(60)
        assert not waiting.is_alive()


def test_where_there_is_no_injector_nothing_is_said(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    time.sleep(1.0)  # some looks
    assert not caplog.messages


# where a pod stands


def refused(locate: Callable[[], JobPod]) -> str:
    with pytest.raises(PeerRefusedError) as error:
        locate()
    return error.value.code


def never(namespace: str, name: object) -> None:
    raise AssertionError("no pod is read of the API server", name)


def located(node: Node, uid: str = "uid-0", gpu: str = "GPU-0") -> JobPod:
    return pods_of(node)(uid, gpu, GPUS)


def pods_of(node: Node) -> ClusterPods:
    told = ToldPods(node.registry, node.jobs)
    return ClusterPods(node.kubelet, never, never, lambda one: told if told.knows(one) else None)


def test_a_pod_that_the_injector_told_of_is_found_without_reading_any_pod(node: Node) -> None:
    injector = node.injector()
    injector.tell(POD)
    injector.hear()
    assert located(node) == JobPod("ns", "pod-0", "uid-0", "job", "uid-job")
    assert len(node.api.job_reads) == 1, "its job was read when it came"


def test_a_job_that_was_not_read_yet_is_read_when_it_is_needed(bare: Node) -> None:
    bare.api.job_reads_fail = True
    injector = bare.injector()
    injector.tell(POD)
    injector.hear()
    bare.start_kubelet()
    assert refused(lambda: located(bare)) == "Unanswered"
    bare.api.job_reads_fail = False
    assert wait_for(lambda: located(bare)).job_uid == "uid-job"


def wait_for(locate: Callable[[], JobPod]) -> JobPod:
    found: list[JobPod] = []

    def look() -> bool:
        try:
            found.append(locate())
        except PeerRefusedError:
            return False
        return True

    wait_until(look, "it is found")
    return found[0]


@pytest.mark.parametrize(
    ("held", "others", "code"),
    [
        ({"pod-1": {"c": ("GPU-0",)}}, ["pod-1"], "NotItsGpu"),
        ({}, [], "NotItsGpu"),
        ({"pod-0": {"c": ("GPU-0",)}, "pod-1": {"c": ("GPU-0",)}}, ["pod-1"], "SharedGpu"),
        ({"pod-0": {"c": ("GPU-0",), "d": ("GPU-0",)}}, [], "SharedGpu"),
        ({"pod-0": {"c": ("GPU-0::1",)}}, [], "SharedGpu"),
    ],
)
def test_whoever_does_not_hold_the_gpu_alone_is_refused(
    node: Node, held: dict[str, dict[str, tuple[str, ...]]], others: list[str], code: str
) -> None:
    node.held = held
    for name in ("pod-0", *others):
        node.registry.came(replace(POD, uid=f"uid-{name[-1]}", name=name))
    assert refused(lambda: located(node)) == code


def test_a_holder_that_is_gone_takes_nothing(node: Node) -> None:
    node.held["pod-1"] = {"c": ("GPU-0",)}
    node.registry.runtime(Runtime(told=True))
    node.registry.came(POD)
    node.registry.came(replace(POD, uid="uid-1", name="pod-1"))
    assert refused(lambda: located(node)) == "SharedGpu"
    node.registry.left("uid-1")
    assert located(node).name == "pod-0"


@pytest.mark.parametrize(
    "word", [None, Runtime(told=False), Runtime(told=False, why=NO_SOCKET), Runtime(told=False, why="it refused")]
)
def test_a_holder_that_may_have_come_unheard_is_not_taken_for_gone(node: Node, word: Runtime | None) -> None:
    """Or a GPU that it shares would be the other's alone."""
    injector = node.injector()
    injector.tell(*([Runtime(told=True)] if word else []), POD, *([word] if word else []))
    injector.hear()
    wait_until(lambda: node.registry.injector[0] != INJECTOR_READY, "its runtime is lost")
    assert located(node).name == "pod-0", "who holds it alone goes on"
    node.held["pod-1"] = {"c": ("GPU-0",)}
    assert refused(lambda: located(node)) == "Unheard"
    found = JobPod("ns", "pod-0", "uid-0", "job", "uid-job")
    assert pods_of(node).part(found, "GPU-0", GPUS).startswith("Unheard"), "so its clocks are let go"
    injector.tell(Runtime(told=True))
    wait_until(lambda: located_or_refused(node) == "pod-0", "now it would be known")
    injector.tell(replace(POD, uid="uid-1", name="pod-1"))
    wait_until(lambda: located_or_refused(node) == "SharedGpu", "it is told")
    injector.tell(Left("uid-1"))
    wait_until(lambda: located_or_refused(node) == "pod-0", "it is gone")
    injector.hang_up()
    # Once the agent comes to the injector anew, whose socket is there still, it waits to be told all pods again.
    wait_until(lambda: located_or_refused(node) in ("Unheard", "read of the API server"), "nobody is told of")


def located_or_refused(node: Node) -> str:
    try:
        return located(node).name
    except PeerRefusedError as error:
        return error.code
    except AssertionError:
        return "read of the API server"


def test_the_gpu_is_the_newest_pods_of_that_name(node: Node) -> None:
    node.registry.came(POD)
    node.registry.came(replace(POD, uid="uid-1"))
    assert refused(lambda: located(node, "uid-0")) == "NotItsGpu"
    assert located(node, "uid-1").uid == "uid-1"


@pytest.mark.parametrize("labels", [{}, {"training.kubeflow.org/job-name": "nobody"}])
def test_a_pod_without_a_job_is_refused(node: Node, labels: dict[str, str]) -> None:
    node.registry.came(replace(POD, labels=labels))
    assert refused(lambda: located(node)) == "NoJob"


def test_a_pod_that_nobody_told_of_is_read_as_before(node: Node) -> None:
    with pytest.raises(AssertionError, match="no pod is read"):
        located(node)


# what is told


def test_what_became_of_containers_is_told_until_their_pod_is_gone(node: Node) -> None:
    registry = node.registry
    registry.came(POD)
    registry.done(Done("uid-0", "pytorch", Outcome.LATE))
    registry.done(Done("uid-0", "pytorch", Outcome.UNSUITED, "it mounts /joulepath itself"))
    registry.done(Done("uid-0", "pytorch", Outcome.UNSUITED, "it mounts /joulepath itself"))
    registry.done(Done("uid-9", "pytorch", Outcome.INJECTED))
    (told,) = registry.report()
    assert told.to_api() == {
        "podUID": "uid-0",
        "namespace": "ns",
        "pod": "pod-0",
        "container": "pytorch",
        "outcome": "Unsuited",
        "why": "it mounts /joulepath itself",
    }
    assert registry.outcomes == {"Late": 1, "Unsuited": 1}
    registry.left("uid-0")
    assert registry.report() == ()


def test_whether_the_runtime_tells_of_pods_is_told_while_an_injector_is_there(node: Node) -> None:
    assert node.registry.injector == (INJECTOR_ABSENT, "")
    injector = node.injector()
    wait_until(lambda: node.registry.injector == (INJECTOR_UNHEARD, ""), "it is there")
    injector.tell(POD, Runtime(told=True))
    wait_until(lambda: node.registry.injector == (INJECTOR_READY, ""), "NRI is on")
    injector.tell(Runtime(told=False, why=f"{NO_SOCKET} at /var/run/nri/nri.sock"))
    wait_until(lambda: node.registry.injector == (INJECTOR_UNTOLD, f"{NO_SOCKET} at /var/run/nri/nri.sock"), "off")
    injector.tell(Runtime(told=False, why="y" * 1000))
    wait_until(lambda: node.registry.injector == (INJECTOR_UNHEARD, "y" * 256), "it refuses")
    injector.hang_up()
    wait_until(lambda: node.registry.injector == (INJECTOR_ABSENT, ""), "it is gone")


def test_what_is_remembered_and_told_is_bounded() -> None:
    registry = Registry()
    for number in range(2000):
        registry.came(replace(POD, uid=f"uid-{number}", name="x" * 1000))
        for container in range(40):
            registry.done(Done(f"uid-{number}", f"{container}-{'x' * 1000}", Outcome.UNSUITED, "y" * 50_000))
    told = registry.report()
    assert len(told) == MOST_INJECTIONS
    assert {one.pod_uid for one in told} == {f"uid-{number}" for number in range(1992, 2000)}, "of the newest pods"
    assert registry.pod("uid-0") is None
    assert sum(len(one.model_dump_json()) for one in told) < 150_000
    assert len({(one.pod_uid, one.container) for one in told}) == len(told), "no two have the same key"


def test_the_folder_of_an_injector_may_vanish(node: Node) -> None:
    with injector_double(node.folder) as injector:
        injector.meet()
        injector.hang_up()
    shutil.rmtree(node.folder / "injector")
    assert node.injector()
