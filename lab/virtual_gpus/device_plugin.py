"""Kubelet device plugin: offers a node's virtual GPUs as `nvidia.com/gpu` and lets containers see those they get.

    python -m virtual_gpus.device_plugin --state PATH --library-dir DIR

As with NVIDIA's, a container finds its GPUs in NVIDIA_VISIBLE_DEVICES and the driver's libraries where the dynamic
loader looks. The kubelet empties the plugin directory when it starts; then the plugin registers again.
Protocol: deviceplugin v1beta1 of k8s.io/kubelet, declared in kubelet_api.py.
"""

from __future__ import annotations

import argparse
import operator
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc

from virtual_gpus import kubelet_api as api
from virtual_gpus import state
from virtual_gpus.build import library_dir

__all__ = ["DevicePlugin", "serve"]

RESOURCE: Final = "nvidia.com/gpu"
CONTAINER_LIBRARIES: Final = "/usr/lib/x86_64-linux-gnu"
CONTAINER_STATE: Final = "/run/virtual-gpus"
LIBRARIES: Final = ("libnvidia-ml.so.1", "libcuda.so.1")
_POLL_S: Final = 0.5


class DevicePlugin:
    """Answers the kubelet for the GPUs of one state file."""

    def __init__(
        self, state_file: Path, libraries: Path, resource: str = RESOURCE, devices: Mapping[str, str] | None = None
    ) -> None:
        """Knows the GPUs that there are now.

        Args:
            state_file: Of the node's GPUs.
            libraries: Folder with the libraries.
            resource: Offered under this name.
            devices: What a container finds in NVIDIA_VISIBLE_DEVICES, by the id of the device. By default each GPU is
                a device, and both are its UUID.
        """
        self._state_file = state_file.resolve()
        self._libraries = libraries.resolve()
        self._devices = devices or {uuid: uuid for uuid in state.uuids(state_file)}
        self.resource = resource
        self.endpoint = f"virtual-{resource.rpartition('/')[2]}.sock"
        self.stopped = threading.Event()

    def options(self, request: Any, context: grpc.ServicerContext) -> Any:
        """No optional call is needed."""
        return api.DevicePluginOptions()

    def list_and_watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """All GPUs, healthy; then silence, since their number never changes."""
        yield api.ListAndWatchResponse(devices=[api.Device(ID=device, health="Healthy") for device in self._devices])
        while context.is_active() and not self.stopped.wait(_POLL_S):
            pass

    def allocate(self, request: Any, context: grpc.ServicerContext) -> Any:
        """What the container of each request gets."""
        return api.AllocateResponse(container_responses=[self._container(c) for c in request.container_requests])

    def _container(self, request: Any) -> Any:
        mounts = [api.Mount(container_path=CONTAINER_STATE, host_path=str(self._state_file.parent))]
        for name in LIBRARIES:
            host_path = str(self._libraries / name)
            mounts.append(
                api.Mount(container_path=f"{CONTAINER_LIBRARIES}/{name}", host_path=host_path, read_only=True)
            )
        environment = {
            "NVIDIA_VISIBLE_DEVICES": ",".join(self._devices[device] for device in request.devices_ids),
            "VIRTUAL_GPUS_STATE": f"{CONTAINER_STATE}/{self._state_file.name}",
        }
        return api.ContainerAllocateResponse(envs=environment, mounts=mounts)

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service, as gRPC wants it."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        of_empty, out = api.Empty.FromString, operator.methodcaller("SerializeToString")
        methods = {
            "GetDevicePluginOptions": unary(self.options, of_empty, out),
            "ListAndWatch": stream(self.list_and_watch, of_empty, out),
            "Allocate": unary(self.allocate, api.AllocateRequest.FromString, out),
        }
        return grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)


def _start(plugin: DevicePlugin, endpoint: Path) -> grpc.Server:
    endpoint.unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((plugin.handlers(),))
    server.add_insecure_port(f"unix://{endpoint}")
    server.start()
    return server


def _register(kubelet: Path, plugin: DevicePlugin) -> None:
    with grpc.insecure_channel(f"unix://{kubelet}") as channel:
        register = channel.unary_unary(
            "/v1beta1.Registration/Register",
            request_serializer=operator.methodcaller("SerializeToString"),
            response_deserializer=api.Empty.FromString,
        )
        asked = api.RegisterRequest(version="v1beta1", endpoint=plugin.endpoint, resource_name=plugin.resource)
        register(asked, timeout=5)


def serve(plugin: DevicePlugin, directory: Path) -> None:
    """Offer the GPUs to the kubelet of `directory` until `plugin.stopped`, over its restarts."""
    kubelet, endpoint = directory / "kubelet.sock", directory / plugin.endpoint
    while not plugin.stopped.is_set():
        if not kubelet.exists():
            plugin.stopped.wait(_POLL_S)
            continue
        server = _start(plugin, endpoint)
        try:
            _register(kubelet, plugin)
            print(f"registered with {kubelet}", flush=True)
            registered_with = kubelet.stat().st_ino
            while not plugin.stopped.wait(_POLL_S):
                if not endpoint.exists() or not kubelet.exists() or kubelet.stat().st_ino != registered_with:
                    break
        except (grpc.RpcError, FileNotFoundError) as error:
            print(f"not registered with {kubelet}, trying again: {error}", file=sys.stderr, flush=True)
            plugin.stopped.wait(_POLL_S)
        finally:
            server.stop(grace=0).wait()
    endpoint.unlink(missing_ok=True)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="virtual_gpus.device_plugin", description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=state.DEFAULT_STATE)
    parser.add_argument("--library-dir", type=Path, help="default: where `python -m virtual_gpus build` puts them")
    parser.add_argument("--plugin-dir", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    arguments = parser.parse_args()
    plugin = DevicePlugin(arguments.state, arguments.library_dir or library_dir())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: plugin.stopped.set())
    serve(plugin, arguments.plugin_dir)


if __name__ == "__main__":
    main()
