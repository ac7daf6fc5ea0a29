"""Where a peer stands, asked of a kubelet (a gRPC server that speaks its protocol) and an API (a function)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from joulepath_agent.peers.ownership import ClusterPods, own_pod
from joulepath_agent.peers.peer import JobPod
from joulepath_agent.peers.podresources import Holder, holders
from joulepath_agent.peers.refusal import PeerRefusedError

GPU = "GPU-1"
HOLDER = Holder("ns", "pod-0", "pytorch", shared=False)


def field(number: int, value: bytes | str) -> bytes:
    """A length-delimited field of a protobuf message, its length in two bytes."""
    body = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(body) & 127 | 128, len(body) >> 7]) + body


def pod(name: str, *devices: str) -> bytes:
    """A PodResources message, with fields that the agent doesn't know."""
    container_devices = field(1, "nvidia.com/gpu") + b"".join(field(2, d) for d in devices) + field(3, field(1, b""))
    container = field(1, "pytorch") + field(2, container_devices) + bytes([3 << 3, 7])
    return field(1, field(1, name) + field(2, "ns") + field(3, container))


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


def body(uid: str = "uid-0", phase: str = "Running", **changes: Any) -> dict[str, Any]:
    """A pod of a job."""
    owners = [
        {"kind": "X", "name": "x", "uid": "x"},
        {"controller": True, "kind": "PyTorchJob", "name": "job", "uid": "job-uid"},
    ]
    metadata = {"name": "pod-0", "namespace": "ns", "uid": uid, "ownerReferences": owners, **changes}
    return {"metadata": metadata, "status": {"phase": phase}}


def test_the_kubelet_tells_who_holds_a_gpu(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(pod("pod-0", GPU, "GPU-2") + pod("pod-1", "GPU-3"))
    assert holders(path, GPU) == (HOLDER,)
    assert holders(path, "GPU-4") == ()


def test_a_replica_of_a_gpu_is_shared(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(pod("pod-0", f"{GPU}::3"))
    assert [holder.shared for holder in holders(path, GPU)] == [True]
    with pytest.raises(PeerRefusedError, match="SharedGpu"):
        ClusterPods(path, api())("uid-0", GPU)


def test_a_silent_kubelet_refuses_for_now(tmp_path: Path) -> None:
    with pytest.raises(PeerRefusedError, match="Unanswered"):
        ClusterPods(tmp_path / "none.sock", api())("uid-0", GPU)


def test_a_pod_stands_where_its_controller_says(kubelet: Callable[[bytes], Path]) -> None:
    path = kubelet(pod("pod-0", GPU))
    assert ClusterPods(path, api(pod_0=body()))("uid-0", GPU) == JobPod("ns", "pod-0", "uid-0", "job", "job-uid")


def test_the_gpu_of_a_pod_that_has_ended_is_its_successors() -> None:
    found = (Holder("ns", "old", "c", shared=False), HOLDER)
    assert own_pod("uid-0", GPU, found, api(old=body("uid-9", "Succeeded"), pod_0=body())).name == "pod-0"


@pytest.mark.parametrize(
    ("found", "pods", "code"),
    [
        ((), {}, "NotItsGpu"),
        ((HOLDER,), {}, "NotItsGpu"),
        ((HOLDER,), {"pod_0": body("uid-9")}, "NotItsGpu"),
        ((HOLDER,), {"pod_0": body(phase="Failed")}, "NotItsGpu"),
        ((HOLDER, Holder("ns", "pod-1", "c", shared=False)), {"pod_0": body(), "pod_1": body("uid-1")}, "SharedGpu"),
        ((HOLDER, Holder("ns", "pod-0", "sidecar", shared=False)), {"pod_0": body()}, "SharedGpu"),
        ((HOLDER,), {"pod_0": body(ownerReferences=None)}, "NoJob"),
    ],
)
def test_whoever_does_not_hold_the_gpu_alone_is_refused(
    found: tuple[Holder, ...], pods: dict[str, Any], code: str
) -> None:
    with pytest.raises(PeerRefusedError) as refused:
        own_pod("uid-0", GPU, found, api(**pods))
    assert refused.value.code == code
