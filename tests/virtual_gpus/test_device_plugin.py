"""The device plugin against a kubelet's registration socket: offers, allocates, and registers again."""

from __future__ import annotations

import operator
import queue
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from virtual_gpus import device_plugin
from virtual_gpus import kubelet_api as api
from virtual_gpus.build import library_dir
from virtual_gpus.fixtures import MakeVirtualGpus, VirtualGpus

WAIT_S = 60
ENDPOINT = "virtual-gpu.sock"
_OUT = operator.methodcaller("SerializeToString")


class Kubelet:
    """The registration half of a kubelet."""

    def __init__(self, directory: Path) -> None:
        self.registered: queue.Queue[Any] = queue.Queue()
        self._socket = directory / "kubelet.sock"

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        register = grpc.unary_unary_rpc_method_handler(self._register, api.RegisterRequest.FromString, _OUT)
        handler = grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": register})
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix://{self._socket}")
        self._server.start()

    def _register(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.registered.put(request)
        return api.Empty()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def gpus(make_virtual_gpus: MakeVirtualGpus) -> VirtualGpus:
    return make_virtual_gpus()


@pytest.fixture
def kubelet(gpus: VirtualGpus, tmp_path: Path) -> Iterator[Kubelet]:
    plugin = device_plugin.DevicePlugin(gpus.path, library_dir())
    kubelet = Kubelet(tmp_path)
    kubelet.start()
    server = threading.Thread(target=device_plugin.serve, args=(plugin, tmp_path))
    server.start()
    yield kubelet
    plugin.stopped.set()
    server.join()
    kubelet.stop()


def _call(tmp_path: Path, method: str, request: Any, answer: Any) -> Any:
    with grpc.insecure_channel(f"unix://{tmp_path / ENDPOINT}") as channel:
        call = channel.unary_unary(f"/v1beta1.DevicePlugin/{method}", _OUT, answer.FromString)
        return call(request, timeout=WAIT_S)


def test_it_offers_every_gpu_by_its_uuid(kubelet: Kubelet, gpus: VirtualGpus, tmp_path: Path) -> None:
    request = kubelet.registered.get(timeout=WAIT_S)
    assert (request.version, request.resource_name) == ("v1beta1", "nvidia.com/gpu")
    with grpc.insecure_channel(f"unix://{tmp_path / request.endpoint}") as channel:
        watch = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch", _OUT, api.ListAndWatchResponse.FromString)
        devices = next(iter(watch(api.Empty(), timeout=WAIT_S))).devices
    assert [(d.ID, d.health) for d in devices] == [(u, "Healthy") for u in gpus.uuids]


def test_a_container_gets_its_gpus_the_libraries_and_the_state(
    kubelet: Kubelet, gpus: VirtualGpus, tmp_path: Path
) -> None:
    kubelet.registered.get(timeout=WAIT_S)
    wanted = gpus.uuids[1:3]
    asked = api.AllocateRequest(container_requests=[_request(wanted)])
    (container,) = _call(tmp_path, "Allocate", asked, api.AllocateResponse).container_responses
    assert dict(container.envs) == {
        "NVIDIA_VISIBLE_DEVICES": ",".join(wanted),
        "VIRTUAL_GPUS_STATE": "/run/virtual-gpus/state",
    }
    mounted = {m.container_path: (Path(m.host_path), m.read_only) for m in container.mounts}
    assert mounted == {
        "/run/virtual-gpus": (gpus.path.parent, False),
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": (library_dir() / "libnvidia-ml.so.1", True),
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1": (library_dir() / "libcuda.so.1", True),
    }


def _request(uuids: list[str]) -> Any:
    return api.ContainerAllocateRequest(devices_ids=uuids)


def test_it_registers_again_when_the_kubelet_restarts(kubelet: Kubelet, gpus: VirtualGpus, tmp_path: Path) -> None:
    kubelet.registered.get(timeout=WAIT_S)
    kubelet.stop()
    (tmp_path / ENDPOINT).unlink(missing_ok=True)
    kubelet.start()
    assert kubelet.registered.get(timeout=WAIT_S).resource_name == "nvidia.com/gpu"
    assert _call(tmp_path, "GetDevicePluginOptions", api.Empty(), api.DevicePluginOptions) == api.DevicePluginOptions()
