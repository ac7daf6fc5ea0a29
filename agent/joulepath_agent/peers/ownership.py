"""Whether a GPU is a pod's alone: its holder by the kubelet, that pod by the API server, its job by the pod's owner.

The kubelet knows pods by name, the kernel by UID; the API server ties both. A GPU is a peer's only if the one pod that
holds it has the UID that the kernel says the peer is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from joulepath_agent.peers.devices import Grant, NodeGpu, granted
from joulepath_agent.peers.podresources import Held, PodResourcesError, held_devices
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["ClusterPods", "ReadPod", "own_pod"]

ReadPod = Callable[[str, str], Mapping[str, Any] | None]
"""Namespace and name to the pod's API object, or None where there is none. Where the API doesn't answer, an OSError."""

_ENDED: Final = ("Succeeded", "Failed")
_NOT_WHOLE: Final = ("SharedGpu", "MigGpu", "AmbiguousGpu")


class ClusterPods:
    """Locate by the kubelet and the API server."""

    def __init__(self, pod_resources: Path, read_pod: ReadPod) -> None:
        self._pod_resources = pod_resources
        self._read_pod = read_pod

    def __call__(self, pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> JobPod:
        """See Locate."""
        try:
            return own_pod(pod_uid, gpu_uuid, gpus, held_devices(self._pod_resources), self._read_pod)
        except (PodResourcesError, OSError) as error:
            raise PeerRefusedError("Unanswered", str(error)) from None

    def part(self, pod: JobPod, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> str:
        """See Locate. Where nothing has changed, the API server isn't asked."""
        try:
            if _holders(gpu_uuid, gpus, held_devices(self._pod_resources)) != [(pod.namespace, pod.name)]:
                self(pod.uid, gpu_uuid, gpus)
        except PodResourcesError:
            pass
        except PeerRefusedError as refusal:
            return str(refusal) if refusal.code in _NOT_WHOLE else ""
        return ""


def own_pod(pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu], held: Sequence[Held], read_pod: ReadPod) -> JobPod:
    """The pod of that UID and its job, if the GPU is its alone.

    Args:
        pod_uid: Of the peer.
        gpu_uuid: What the peer says it runs on.
        gpus: All of the node.
        held: All devices that containers hold.
        read_pod: Reads a pod.

    Raises:
        PeerRefusedError: The GPU is another's, shared or in MIG mode, or the pod belongs to no job.
    """
    holders = _holders(gpu_uuid, gpus, held)
    pods = {key: read_pod(*key) for key in holders}
    living = {key: pod for key, pod in pods.items() if pod and pod.get("status", {}).get("phase") not in _ENDED}
    own = next((key for key, pod in living.items() if pod["metadata"]["uid"] == pod_uid), None)
    if own is None:
        raise PeerRefusedError("NotItsGpu", f"the kubelet gave {gpu_uuid} to another pod than {pod_uid}, or to none")
    if len(living) > 1 or holders.count(own) > 1:
        raise PeerRefusedError("SharedGpu", f"{gpu_uuid} is held by more than one container")
    metadata = living[own]["metadata"]
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None or owner.get("kind") != "PyTorchJob":
        raise PeerRefusedError(
            "NoJob", f"pod {metadata['name']} isn't controlled by a PyTorchJob, so it belongs to no job"
        )
    return JobPod(metadata["namespace"], metadata["name"], pod_uid, owner["name"], owner["uid"])


def _holders(gpu_uuid: str, gpus: Sequence[NodeGpu], held: Sequence[Held]) -> list[tuple[str, str]]:
    """Namespace and name of the pod of each container that has the GPU."""
    holders = []
    for device in held:
        for grant in granted(device.resource, device.device, gpus):
            if _is_meant(gpu_uuid, grant, gpus):
                if grant.code:
                    raise PeerRefusedError(grant.code, grant.why)
                holders.append((device.namespace, device.pod))
    return holders


def _is_meant(gpu_uuid: str, grant: Grant, gpus: Sequence[NodeGpu]) -> bool:
    """CUDA names a MIG instance, which NVML and some plugins don't: a GPU that isn't there is taken for one."""
    unknown = all(gpu.uuid != gpu_uuid for gpu in gpus)
    return grant.uuid == gpu_uuid or (unknown and grant.code == "MigGpu")
