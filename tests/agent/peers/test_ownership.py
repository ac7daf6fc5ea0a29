"""Where a peer stands, asked of a kubelet (a gRPC server that speaks its protocol) and an API (a function)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.ownership import ApiPods, ClusterPods, own_pod
from joulepath_agent.peers.podresources import Held, held_devices
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_rules import JobName

GPU, RESOURCE = "GPU-1", "nvidia.com/gpu"
GPUS = (NodeGpu("GPU-0", 0, 1, mig=False), NodeGpu(GPU, 1, 0, mig=False))
HELD = Held("ns", "pod-0", "pytorch", RESOURCE, GPU)


def field(number: int, value: bytes | str) -> bytes:
    """A length-delimited field of a protobuf message, its length in two bytes."""
    body = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(body) & 127 | 128, len(body) >> 7]) + body


def pod(name: str, *devices: str) -> bytes:
    """A PodResources message, with fields that the agent doesn't know."""
    container_devices = field(1, RESOURCE) + b"".join(field(2, d) for d in devices) + field(3, field(1, b""))
    return of_container(name, field(2, container_devices) + bytes([3 << 3, 7]))


def claiming_pod(name: str, driver: str, device: str, share: str = "") -> bytes:
    """A PodResources message of a pod with a claim (DRA), as a kubelet 1.37 with NVIDIA's driver tells it."""
    cdi = field(1, field(1, f"k8s.gpu.nvidia.com/claim=6e1cbf0b-{device}"))
    resource = cdi + field(2, driver) + field(3, "node0") + field(4, device) + (field(5, share) if share else b"")
    return of_container(name, field(5, field(2, "claim") + field(3, "ns") + field(4, resource)))


def of_container(name: str, resources: bytes) -> bytes:
    """A PodResources message whose one container has these."""
    return field(1, field(1, name) + field(2, "ns") + field(3, field(1, "pytorch") + resources))


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Factory of a kubelet that answers List with these bytes."""
    servers: list[grpc.Server] = []

    def start(answer: bytes) -> Path:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        listing = {"List": grpc.unary_unary_rpc_method_handler(lambda request, context: answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", listing),))
        path = tmp_path / "kubelet.sock"
        server.add_insecure_port(f"unix://{path}")
        server.start()
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.stop(0).wait()


def api(**pods: Mapping[str, Any]) -> Callable[[str, str], Mapping[str, Any] | None]:
    """An API that knows these pods."""
    return lambda namespace, name: pods.get(name.replace("-", "_"))


def owned_by(version: str, kind: str, name: str) -> dict[str, Any]:
    """A reference to a controller."""
    return {"controller": True, "apiVersion": version, "kind": kind, "name": name, "uid": f"{name}-uid"}


def jobs(**owners: dict[str, Any] | None) -> Callable[[str, JobName], Mapping[str, Any] | None]:
    """An API that knows these jobs, by kind, and who has made each."""

    def read(namespace: str, job: JobName) -> Mapping[str, Any] | None:
        if job.kind.kind not in owners:
            return None
        owner = owners[job.kind.kind]
        return {"name": job.name, "uid": job.uid, "ownerReferences": [owner] if owner else None}

    return read


def unread(namespace: str, job: JobName) -> Mapping[str, Any] | None:
    """An API that isn't asked."""
    raise AssertionError(job)


def body(uid: str = "uid-0", phase: str = "Running", **changes: Any) -> dict[str, Any]:
    """A pod of a job."""
    owners = [
        {"kind": "X", "name": "x", "uid": "x"},
        owned_by("kubeflow.org/v1", "PyTorchJob", "job"),
    ]
    metadata = {"name": "pod-0", "namespace": "ns", "uid": uid, "ownerReferences": owners, **changes}
    return {"metadata": metadata, "status": {"phase": phase}}


_BOTH = {"pod_0": body(), "pod_1": body("uid-1")}


def test_the_kubelet_tells_which_devices_containers_hold(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(pod("pod-0", GPU, "GPU-2") + claiming_pod("pod-1", "gpu.nvidia.com", "gpu-0", "s1"))
    assert held_devices(path) == (
        HELD,
        Held("ns", "pod-0", "pytorch", RESOURCE, "GPU-2"),
        Held("ns", "pod-1", "pytorch", "gpu.nvidia.com", "gpu-0::s1"),
    )


@pytest.mark.parametrize("device", [GPU, "nvidia0"])
def test_a_pod_stands_where_its_controller_says(kubelet: Callable[[bytes], Path], device: str) -> None:
    path = kubelet(pod("pod-0", device))
    assert ClusterPods(path, api(pod_0=body()), unread)("uid-0", GPU, GPUS) == JobPod(
        "ns", "pod-0", "uid-0", "job", "job-uid"
    )


_JOB = owned_by("batch/v1", "Job", "part-0")
_JOB_SET = owned_by("jobset.x-k8s.io/v1alpha2", "JobSet", "set")
_TRAIN_JOB = owned_by("trainer.kubeflow.org/v1alpha1", "TrainJob", "train")


@pytest.mark.parametrize(
    ("made", "topmost"),
    [
        ({"Job": None}, "part-0"),
        ({"Job": owned_by("batch/v1", "CronJob", "nightly")}, "part-0"),
        ({"Job": _JOB_SET, "JobSet": None}, "set"),
        ({"Job": _JOB_SET, "JobSet": _TRAIN_JOB}, "train"),
        ({"Job": _JOB_SET, "JobSet": _JOB}, "set"),  # nothing is made by what it makes
    ],
    ids=["a Job", "somebody else's", "a JobSet's", "a TrainJob's", "in a circle"],
)
def test_a_pod_belongs_to_the_topmost_job(made: dict[str, Any], topmost: str) -> None:
    pods = ApiPods(api(pod_0=body(ownerReferences=[_JOB])), jobs(**made))
    found = own_pod("uid-0", GPU, GPUS, (HELD,), pods)
    assert (found.job, found.job_uid) == (topmost, f"{topmost}-uid")


def test_a_pod_whose_job_is_gone_belongs_to_none() -> None:
    with pytest.raises(PeerRefusedError, match="NoJob: Job part-0 isn't there any more"):
        own_pod("uid-0", GPU, GPUS, (HELD,), ApiPods(api(pod_0=body(ownerReferences=[_JOB])), jobs()))


def test_a_claim_is_a_gpu_as_well(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(claiming_pod("pod-0", "gpu.nvidia.com", "gpu-0"))
    assert ClusterPods(path, api(pod_0=body()), unread)("uid-0", GPU, GPUS).name == "pod-0"


@pytest.mark.parametrize(
    ("device", "claimed", "code", "why"),
    [
        (f"{GPU}::3", GPU, "SharedGpu", "share of a GPU"),
        ("nvidia0/vgpu1", GPU, "SharedGpu", "share of a GPU"),
        ("MIG-1b2c", "GPU-1b2c", "MigGpu", "MIG mode"),  # as CUDA names the instance
        ("nvidia0/gi1", "GPU-1b2c", "MigGpu", "MIG mode"),
        ("0", GPU, "AmbiguousGpu", "UUIDs"),
    ],
)
def test_part_of_a_gpu_is_refused_with_the_reason(
    kubelet: Callable[[bytes], Path], device: str, claimed: str, code: str, why: str
) -> None:
    with pytest.raises(PeerRefusedError, match=f"^{code}: .*{why}") as refused:
        ClusterPods(kubelet(pod("pod-0", device)), api(pod_0=body()), unread)("uid-0", claimed, GPUS)
    assert not refused.value.final


def test_the_mig_instances_of_another_gpu_disturb_nobody(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(pod("pod-0", GPU) + pod("pod-1", "MIG-1b2c", "nvidia1/gi1"))
    assert ClusterPods(path, api(pod_0=body()), unread)("uid-0", GPU, GPUS).name == "pod-0"


def test_a_silent_kubelet_refuses_for_now(tmp_path: Path) -> None:
    with pytest.raises(PeerRefusedError, match="Unanswered"):
        ClusterPods(tmp_path / "none.sock", api(), unread)("uid-0", GPU, GPUS)


def test_the_gpu_of_a_pod_that_has_ended_is_its_successors() -> None:
    held = (Held("ns", "old", "c", RESOURCE, GPU), HELD)
    assert (
        own_pod("uid-0", GPU, GPUS, held, ApiPods(api(old=body("uid-9", "Succeeded"), pod_0=body()), unread)).name
        == "pod-0"
    )


@pytest.mark.parametrize(
    ("held", "pods", "code"),
    [
        ((), {}, "NotItsGpu"),
        ((HELD,), {}, "NotItsGpu"),
        ((HELD,), {"pod_0": body("uid-9")}, "NotItsGpu"),
        ((HELD,), {"pod_0": body(phase="Failed")}, "NotItsGpu"),
        ((Held("ns", "pod-0", "c", RESOURCE, "GPU-0"),), {"pod_0": body()}, "NotItsGpu"),
        ((HELD, Held("ns", "pod-1", "c", RESOURCE, GPU)), _BOTH, "SharedGpu"),
        ((HELD, Held("ns", "pod-1", "c", "gpu.nvidia.com", "gpu-0")), _BOTH, "SharedGpu"),
        ((HELD, Held("ns", "pod-1", "c", "nvidia.com/renamed", "nvidia0")), _BOTH, "SharedGpu"),
        ((HELD, Held("ns", "pod-1", "c", RESOURCE, f"{GPU}::0")), _BOTH, "SharedGpu"),
        ((HELD, Held("ns", "pod-0", "sidecar", RESOURCE, GPU)), {"pod_0": body()}, "SharedGpu"),
        ((HELD,), {"pod_0": body(ownerReferences=None)}, "NoJob"),
    ],
)
def test_whoever_does_not_hold_the_gpu_alone_is_refused(
    held: tuple[Held, ...], pods: dict[str, Any], code: str
) -> None:
    with pytest.raises(PeerRefusedError) as refused:
        own_pod("uid-0", GPU, GPUS, held, ApiPods(api(**pods), unread))
    assert refused.value.code == code


OWN = JobPod("ns", "pod-0", "uid-0", "job", "job-uid")


def test_a_pod_that_still_has_its_gpu_alone_is_told_so_by_the_kubelet_only(kubelet: Callable[[bytes], Path]) -> None:
    def never(namespace: str, name: str) -> None:
        raise AssertionError("the API server isn't asked")

    path = kubelet(pod("pod-0", GPU) + pod("pod-1", "GPU-0"))
    assert ClusterPods(path, never, unread).part(OWN, GPU, GPUS) == ""


def test_a_pod_learns_when_its_gpu_is_given_to_another_as_well(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(claiming_pod("pod-0", "gpu.nvidia.com", "gpu-0") + claiming_pod("pod-1", "gpu.nvidia.com", "gpu-0"))
    assert ClusterPods(path, api(**_BOTH), unread).part(OWN, GPU, GPUS).startswith("SharedGpu")


@pytest.mark.parametrize(
    "pods",
    [{"pod_0": body(), "pod_1": body("uid-1", "Succeeded")}, {"pod_0": body()}, {}],
    ids=["ended", "gone", "none"],
)
def test_pods_that_are_no_more_take_nothing(kubelet: Callable[[bytes], Path], pods: dict[str, Any]) -> None:
    path = kubelet(pod("pod-0", GPU) + pod("pod-1", GPU))
    assert ClusterPods(path, api(**pods), unread).part(OWN, GPU, GPUS) == ""


def test_who_cannot_be_asked_takes_nothing(kubelet: Callable[[bytes], Path], tmp_path: Path) -> None:
    def silent(namespace: str, name: str) -> None:
        raise TimeoutError("no answer")

    assert ClusterPods(tmp_path / "none.sock", silent, unread).part(OWN, GPU, GPUS) == ""
    assert ClusterPods(kubelet(pod("pod-0", GPU) + pod("pod-1", GPU)), silent, unread).part(OWN, GPU, GPUS) == ""
