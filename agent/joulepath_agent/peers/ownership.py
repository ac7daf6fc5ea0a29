"""Whether a GPU is a pod's alone: its holder by the kubelet, that pod and its job by whoever knows the node's pods.

The kubelet knows pods by name, the kernel by UID; the API server ties both, and so does the node's injector, which is
told of each pod by the runtime. A GPU is a peer's only if the one pod that holds it has the UID that the peer is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from joulepath_agent.peers.devices import Grant, NodeGpu, granted
from joulepath_agent.peers.podresources import Held, PodResourcesError, held_devices
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_rules import JobName, controller, maker

__all__ = ["ApiPods", "ClusterPods", "Pods", "ReadJob", "ReadPod", "own_pod"]

ReadJob = Callable[[str, JobName], Mapping[str, Any] | None]
"""Namespace and name to a job's metadata, or None where it isn't there. Where the API doesn't answer, an OSError."""
ReadPod = Callable[[str, str], Mapping[str, Any] | None]
"""Namespace and name to the pod's API object, or None where there is none. Where the API doesn't answer, an OSError."""

_ENDED: Final = ("Succeeded", "Failed")
_NOT_WHOLE: Final = ("SharedGpu", "MigGpu", "AmbiguousGpu", "Unheard")


class Pods(Protocol):
    """The pods of the node, by namespace and name."""

    def uid(self, namespace: str, name: str) -> str | None:
        """The UID of one that hasn't ended; None if there is none.

        Raises:
            PeerRefusedError: Nobody will know, for as long as that lasts.
            OSError: Whoever knows doesn't answer.
        """

    def job(self, namespace: str, name: str) -> tuple[str, str]:
        """Name and UID of the job of such a pod.

        Raises:
            PeerRefusedError: It belongs to none.
            OSError: Whoever knows doesn't answer.
        """


class ApiPods:
    """Pods as the API server has them, for one question."""

    def __init__(self, read_pod: ReadPod, read_job: ReadJob) -> None:
        self._read_pod, self._read_job = read_pod, read_job
        self._read: dict[tuple[str, str], Mapping[str, Any]] = {}

    def uid(self, namespace: str, name: str) -> str | None:
        """See Pods."""
        pod = self._read_pod(namespace, name)
        if not pod or pod.get("status", {}).get("phase") in _ENDED:
            return None
        self._read[namespace, name] = pod
        return str(pod["metadata"]["uid"])

    def job(self, namespace: str, name: str) -> tuple[str, str]:
        """See Pods: its controller, or that which has made it. The topmost needn't be read."""
        above = controller(self._read[namespace, name]["metadata"])
        if above is None:
            raise PeerRefusedError("NoJob", f"pod {name} isn't controlled by a job that can be planned for")
        job = above
        while above is not None:
            job, above = above, self._maker(namespace, above)
        return job.name, job.uid

    def _maker(self, namespace: str, job: JobName) -> JobName | None:
        if not job.kind.made_by:
            return None
        if (metadata := self._read_job(namespace, job)) is None:
            raise PeerRefusedError("NoJob", f"{job} isn't there any more")
        return maker(job.kind, metadata)


class ClusterPods:
    """Locate by the kubelet, and by injector or API server."""

    def __init__(
        self,
        pod_resources: Path,
        read_pod: ReadPod,
        read_job: ReadJob,
        told: Callable[[str], Pods | None] = lambda pod_uid: None,
    ) -> None:
        """Asks nobody yet.

        Args:
            pod_resources: The kubelet's socket.
            read_pod: Reads a pod of the API server's.
            read_job: Likewise, a job's metadata.
            told: Those who know the pod of a UID without it, and others on its node.
        """
        self._pod_resources, self._read_pod, self._read_job, self._told = pod_resources, read_pod, read_job, told

    def __call__(self, pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> JobPod:
        """See Locate."""
        try:
            held = held_devices(self._pod_resources)
            pods = self._told(pod_uid) or ApiPods(self._read_pod, self._read_job)
            return own_pod(pod_uid, gpu_uuid, gpus, held, pods)
        except (PodResourcesError, OSError) as error:
            raise PeerRefusedError("Unanswered", str(error)) from None

    def part(self, pod: JobPod, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> str:
        """See Locate. Where nothing has changed, nobody else is asked."""
        try:
            if _holders(gpu_uuid, gpus, held_devices(self._pod_resources)) != [(pod.namespace, pod.name)]:
                self(pod.uid, gpu_uuid, gpus)
        except PodResourcesError:
            pass
        except PeerRefusedError as refusal:
            return str(refusal) if refusal.code in _NOT_WHOLE else ""
        return ""


def own_pod(pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu], held: Sequence[Held], pods: Pods) -> JobPod:
    """The pod of that UID and its job, if the GPU is its alone.

    Args:
        pod_uid: Of the peer.
        gpu_uuid: What the peer says it runs on.
        gpus: All of the node.
        held: All devices that containers hold.
        pods: Whoever knows pods.

    Raises:
        PeerRefusedError: The GPU is another's, shared or in MIG mode, or the pod belongs to no job.
        OSError: Whoever knows pods doesn't answer.
    """
    holders = _holders(gpu_uuid, gpus, held)
    uids = {key: pods.uid(*key) for key in holders}
    living = {uid: key for key, uid in uids.items() if uid is not None}
    own = living.get(pod_uid)
    if own is None:
        raise PeerRefusedError("NotItsGpu", f"the kubelet gave {gpu_uuid} to another pod than {pod_uid}, or to none")
    if len(living) > 1 or holders.count(own) > 1:
        raise PeerRefusedError("SharedGpu", f"{gpu_uuid} is held by more than one container")
    return JobPod(*own, pod_uid, *pods.job(*own))


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
