"""Kubelet plugin of a DRA driver: prepares claims of GPUs under the names of NVIDIA's driver, `gpu.nvidia.com`.

Whoever starts it publishes the ResourceSlice of the node and the DeviceClass. As NVIDIA's driver it writes a CDI
specification for each claim, which says what the container sees. Protocols: pluginregistration v1 and dra v1 of
k8s.io/kubelet, declared in kubelet_api.py.
"""

from __future__ import annotations

import contextlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc

from virtual_gpus import kubelet_api as api

__all__ = ["DRIVER", "DraDriver", "Result"]

DRIVER: Final = "gpu.nvidia.com"
_CDI_KIND: Final = f"k8s.{DRIVER}/claim"
_KUBELET: Final = Path("/var/lib/kubelet")

Result = Mapping[str, str]
"""`request`, `pool` and `device`, as a claim's status has them."""


class DraDriver:
    """Serves the kubelet of one node, from the moment it is made."""

    def __init__(
        self, root: Path, visible: Mapping[str, str], allocated: Callable[[str, str], Sequence[Result]]
    ) -> None:
        """Registers.

        Args:
            root: The node's file system.
            visible: What a container finds in NVIDIA_VISIBLE_DEVICES, by the name of the device.
            allocated: Namespace and name of a claim to what the scheduler has allocated for it.
        """
        self._visible, self._allocated = visible, allocated
        self._files: set[Path] = set()
        self._cdi = root / "run/cdi"
        self._cdi.mkdir(exist_ok=True)
        endpoint = _KUBELET / "plugins" / DRIVER / "dra.sock"
        self._information = api.PluginInfo(
            type="DRAPlugin", name=DRIVER, endpoint=str(endpoint), supported_versions=["v1.DRAPlugin"]
        )
        sockets = [root / str(path).lstrip("/") for path in (endpoint, _KUBELET / f"plugins_registry/{DRIVER}.sock")]
        self._servers = [_served(path, service) for path, service in zip(sockets, self._services(), strict=True)]

    def close(self) -> None:
        """Ends; the kubelet notices that the sockets are gone."""
        for server in self._servers:
            server.stop(grace=0).wait()
        for file in self._files:  # the kubelet may not have given all claims back yet
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._cdi.rmdir()

    def _services(self) -> tuple[grpc.GenericRpcHandler[Any, Any], grpc.GenericRpcHandler[Any, Any]]:
        unary, out = grpc.unary_unary_rpc_method_handler, operator.methodcaller("SerializeToString")
        of_claims, of_any = api.NodeResourcesRequest.FromString, api.Empty.FromString
        handler = grpc.method_handlers_generic_handler
        resources = {
            "NodePrepareResources": unary(self._prepare, of_claims, out),
            "NodeUnprepareResources": unary(self._unprepare, of_claims, out),
        }
        registration = {
            "GetInfo": unary(lambda request, context: self._information, of_any, out),
            "NotifyRegistrationStatus": unary(lambda request, context: api.Empty(), of_any, out),
        }
        return (
            handler("k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin", resources),
            handler("pluginregistration.Registration", registration),
        )

    def _prepare(self, request: Any, context: grpc.ServicerContext) -> Any:
        return api.NodePrepareResourcesResponse(claims={claim.uid: self._prepared(claim) for claim in request.claims})

    def _prepared(self, claim: Any) -> Any:
        results = self._allocated(claim.namespace, claim.name)
        names = {result["device"]: f"{claim.uid}-{result['device']}" for result in results}
        edits = [
            {"name": name, "containerEdits": {"env": [f"NVIDIA_VISIBLE_DEVICES={self._visible[device]}"]}}
            for device, name in names.items()
        ]
        specification = {"cdiVersion": "0.6.0", "kind": _CDI_KIND, "devices": edits}
        self._files.add(file := self._file(claim))
        file.write_text(json.dumps(specification))
        return api.NodePrepareResourceResponse(
            devices=[
                api.PreparedDevice(
                    request_names=[result["request"]],
                    pool_name=result["pool"],
                    device_name=result["device"],
                    cdi_device_ids=[f"{_CDI_KIND}={names[result['device']]}"],
                )
                for result in results
            ]
        )

    def _unprepare(self, request: Any, context: grpc.ServicerContext) -> Any:
        for claim in request.claims:
            self._file(claim).unlink(missing_ok=True)
        done = {claim.uid: api.NodeUnprepareResourceResponse() for claim in request.claims}
        return api.NodeUnprepareResourcesResponse(claims=done)

    def _file(self, claim: Any) -> Path:
        return self._cdi / f"k8s.{DRIVER}-claim_{claim.uid}.json"


def _served(path: Path, service: grpc.GenericRpcHandler[Any, Any]) -> grpc.Server:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix://{path}")
    server.start()
    return server
