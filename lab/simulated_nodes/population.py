"""What users, controllers and kubelets would have made, made bare: nodes, agents' pods and tokens, jobs with pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from joulepath_crds import ANNOTATION
from joulepath_crds.contract import GROUP, VERSION
from simulated_nodes.job import GPUS_PER_NODE, Job
from simulated_nodes.place import Place
from simulated_nodes.release import AGENT, NAMESPACE

__all__ = ["Population"]

_AT_ONCE: Final = 4
_TOKEN_S: Final = 86400
_TEAM: Final = "team"
_IMAGE: Final = "none.invalid/training"
_CORE: Final = ("api", "v1")
T = TypeVar("T")
R = TypeVar("R")


class Population:
    """Makes objects as the administrator."""

    def __init__(self, place: Place) -> None:
        self._api = place.api()
        self._api.create(_object("Namespace", _TEAM, None), *_CORE, "namespaces")
        self._api.create(_object("ServiceAccount", "default", _TEAM), *_CORE, "namespaces", _TEAM, "serviceaccounts")

    def nodes(self, count: int) -> dict[str, str]:
        """So many, and the token of each one's agent."""
        return dict(_each(self._node, [f"node-{number:04}" for number in range(count)]))

    def token(self, account: str, pod: Mapping[str, Any] | None = None) -> str:
        """A service account's, bound to its pod where one is given: so it names that pod's node."""
        spec: dict[str, Any] = {"expirationSeconds": _TOKEN_S, "audiences": []}
        if pod is not None:
            bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            spec["boundObjectRef"] = bound
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        where = *_CORE, "namespaces", NAMESPACE, "serviceaccounts", account, "token"
        token: str = self._api.create(asked, *where)["status"]["token"]
        return token

    def energy_plans(self, names: Iterable[str]) -> None:
        """One for each job of these names, there or not."""
        _each(self._energy_plan, names)

    def job(self, name: str, nodes: tuple[str, ...], **shape: int) -> Job:
        """A PyTorchJob that asks for the plan of its name, and its pods, one on each of these nodes."""
        body = _object("PyTorchJob", name, _TEAM, "kubeflow.org/v1")
        body["metadata"]["annotations"] = {ANNOTATION: name}
        container = {"name": "pytorch", "image": _IMAGE, "resources": {"limits": {"nvidia.com/gpu": GPUS_PER_NODE}}}
        replicas = {"replicas": len(nodes), "template": {"spec": {"containers": [container]}}}
        body["spec"] = {"pytorchReplicaSpecs": {"Worker": replicas}}
        made = self._api.create(body, "apis", "kubeflow.org", "v1", "namespaces", _TEAM, "pytorchjobs")
        owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": name, "uid": made["metadata"]["uid"]}

        def pod(node: str) -> str:
            body = _object("Pod", f"{name}-{node}", _TEAM)
            body["metadata"]["labels"] = {"training.kubeflow.org/job-name": name}
            body["metadata"]["ownerReferences"] = [owner | {"controller": True}]
            body["spec"] = {"nodeName": node, "containers": [container]}
            uid: str = self._running(body)["metadata"]["uid"]
            return uid

        return Job(_TEAM, name, made["metadata"]["uid"], nodes, tuple(_each(pod, nodes)), **shape)

    def _node(self, name: str) -> tuple[str, str]:
        self._api.create(_object("Node", name, None), *_CORE, "nodes")
        body = _object("Pod", f"{AGENT}-{name}", NAMESPACE)
        body["metadata"]["labels"] = {
            "app.kubernetes.io/part-of": "joulepath",
            "app.kubernetes.io/component": "agent",
        }
        body["spec"] = {
            "nodeName": name,
            "serviceAccountName": AGENT,
            "automountServiceAccountToken": False,
            "containers": [{"name": "agent", "image": _IMAGE}],
        }
        return name, self.token(AGENT, self._running(body))

    def _running(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        where = *_CORE, "namespaces", body["metadata"]["namespace"], "pods"
        made = self._api.create(body, *where)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self._api.patch({"status": status}, *where, body["metadata"]["name"], "status")
        return made

    def _energy_plan(self, name: str) -> None:
        body = _object("EnergyPlan", name, _TEAM, f"{GROUP}/{VERSION}")
        body["spec"] = {"job": {"name": name}}
        self._api.create(body, "apis", GROUP, VERSION, "namespaces", _TEAM, "energyplans")


def _object(kind: str, name: str, namespace: str | None, version: str = "v1") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(work, items))
