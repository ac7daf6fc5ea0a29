"""What trains: small pipelines on virtual GPUs, and pods that only wait, where a test is not about training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from demo import manifests
from demo.local_cluster import LocalCluster
from demo.options import Options
from demo.workloads import WORKLOADS
from joulepath_crds import ANNOTATION, GROUP, VERSION, Phase
from real_cluster import Cluster, NotYetError, until
from tests.end_to_end.product import JOBS, PYTHONPATH_IMAGE, WALL_CLOCK_ENVIRONMENT, Gpus
from tests.end_to_end.watching import Recorder

__all__ = [
    "AHEAD",
    "BLOCK_ITERATIONS",
    "KERNELS",
    "PYTHONPATH_KEPT",
    "apply",
    "asking_anew",
    "energy_plan",
    "own_pythonpath",
    "pods",
    "pods_as_made",
    "python_volumes",
    "stop",
    "template",
    "training_job",
    "waiting_job",
]

BLOCK_ITERATIONS: Final = 4
"""Of plan and control blocks."""
AHEAD: Final = 64
"""Iterations that a job may be ahead of what is told of it, which is once a minute, and some more."""

_PLACE = replace(LocalCluster(Options()).training(), namespace=JOBS)
_SCRIPTS = "training-script"
_NODES = {"Master": "node0", "Worker": "node1"}
_MICROBATCHES = 6
KERNELS: Final = 2 * _MICROBATCHES
"""That a GPU computes for an iteration of `training_job`: forward and backward of each microbatch."""
_ALLOWED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SAY = """
import json, subprocess, sys, users_module
child = subprocess.run([sys.executable, "-c", "import users_module; print(users_module.__file__)"], capture_output=True)
print(json.dumps({
    "greeting": users_module.GREETING, "child": child.stdout.decode().strip(),
    "trainer": "joulepath_trainer.hook" in sys.modules,
}))
"""
PYTHONPATH_KEPT: Final = {
    "greeting": "hello from the image's own PYTHONPATH",
    "child": "/opt/user/users_module.py",
    "trainer": True,
}
"""What `own_pythonpath` says where image and trainer both are heard."""
_WAIT = "until [ -e /run/virtual-gpus/stop-{name} ]; do sleep 0.2; done"


def apply(cluster: Cluster, *manifests: Mapping[str, Any], namespace: str = JOBS) -> None:
    """`kubectl apply`."""
    text = yaml.safe_dump_all([dict(one) for one in manifests])
    cluster.kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=text)


def energy_plan(name: str, **spec: Any) -> dict[str, Any]:
    """An EnergyPlan for the job of the same name, with few clocks and short blocks."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "EnergyPlan",
        "metadata": {"name": name},
        "spec": {
            "job": {"name": name},
            "granularity": "phase",  # on two busy cores, single instructions would have to last longer
            "profiling": {"clocks": 5, "iterationsPerClock": 2},
            "measurement": {"blockIterations": BLOCK_ITERATIONS, "pairs": 60},
            **spec,
        },
    }


def _ask_anew(cluster: Cluster, record: Recorder, name: str) -> None:
    """Changes what an EnergyPlan asks for, so that it is planned for anew; if it was refused, measured anew as well.

    On two busy cores the iterations of a sweep may be of another length than those before and after it.
    """
    status, plan = record.status(name), record.living("energyplans")[name].body
    if status.phase is Phase.REFUSED and status.profile:
        cluster.kubectl("delete", "energyprofile", status.profile, "--namespace", JOBS, "--ignore-not-found")
    pairs = 60 + (plan["spec"]["measurement"]["pairs"] + 1) % 60
    change = json.dumps({"spec": {"measurement": {"pairs": pairs}}})
    cluster.kubectl("patch", "energyplan", name, "--namespace", JOBS, "--type=merge", "--patch", change)


def asking_anew(
    cluster: Cluster, record: Recorder, name: str, stuck: Callable[[], bool] = lambda: False
) -> Callable[[], None]:
    """To be called again and again: asks anew, once for each generation, where a plan is refused or `stuck`."""
    asked = set[int]()

    def look() -> None:
        if (plan := record.living("energyplans").get(name)) is None:
            return
        generation, status = plan.body["metadata"]["generation"], record.status(name)
        known = status.observed_generation == generation and generation not in asked
        if known and (status.phase is Phase.REFUSED or stuck()):
            asked.add(generation)
            _ask_anew(cluster, record, name)

    return look


def python_volumes() -> tuple[dict[str, Any], ...]:
    """What `training_job` claims, and the claims."""
    return manifests.python_volumes(_PLACE)


def script() -> dict[str, Any]:
    """The ConfigMap with the training scripts."""
    data = {one.name: one.read_text() for one in Path(__file__).with_name("workload").glob("*.py")}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _SCRIPTS}, "data": data}


def training_job(
    name: str,
    *,
    first_kernel: int,
    ranks_per_pod: int = 2,
    workers: int = 0,
    cpu: str = "500m",
    workload: str = "pipeline.py",
) -> dict[str, Any]:
    """A pipeline (or replicas) over two pods on two nodes, annotated, which trains until `stop`; needs `script()`."""
    job = manifests.pytorch_job(WORKLOADS["gpt3"].example, _PLACE, steps=1)
    job["metadata"] = {"name": name, "annotations": {ANNOTATION: name}}
    job["spec"]["nprocPerNode"] = str(ranks_per_pod)
    for role, replica in job["spec"]["pytorchReplicaSpecs"].items():
        pod = replica["template"]["spec"]
        pod["nodeSelector"] = {"kubernetes.io/hostname": _NODES[role]}
        pod["volumes"].append({"name": "script", "configMap": {"name": _SCRIPTS}})
        (container,) = pod["containers"]
        container["command"][-1] = f"/end-to-end/{workload}"
        container["args"] = [
            *("--stop-file", f"/run/virtual-gpus/stop-{name}", "--microbatches", str(_MICROBATCHES)),
            *("--first-kernel", str(first_kernel), "--workers", str(workers)),
        ]
        container["env"] += [{"name": key, "value": value} for key, value in WALL_CLOCK_ENVIRONMENT.items()]
        container["volumeMounts"].append({"name": "script", "mountPath": "/end-to-end"})
        container["resources"]["requests"]["cpu"] = cpu
        container["resources"]["limits"]["nvidia.com/gpu"] = str(ranks_per_pod)
    return job


def waiting_job(
    name: str,
    command: Sequence[str] = (),
    *,
    annotated: bool = True,
    image: str = "localhost/joulepath/busybox:1",
    roles: Sequence[str] = ("Master",),
) -> dict[str, Any]:
    """A job whose pods have one GPU each and run `command`, else wait for `stop`; a restricted namespace takes them."""
    container = {
        "name": "pytorch",
        "image": image,
        "imagePullPolicy": "Never",
        "command": list(command or ("sh", "-c", _WAIT.format(name=name))),
        "env": [{"name": "GREETING", "value": "hello"}],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "securityContext": _ALLOWED,
    }
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    replica = {"replicas": 1, "restartPolicy": "OnFailure", "template": {"spec": pod}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "annotations": {ANNOTATION: name} if annotated else {}},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "None"},
            "pytorchReplicaSpecs": {role: json.loads(json.dumps(replica)) for role in roles},
        },
    }


def template(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a job's first pod is made from."""
    made: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    return made


def stop(cluster: Cluster, name: str, step: int = 0) -> None:
    """Let a job end before this step, which must be well ahead; waiting jobs end at once."""
    for node in cluster.nodes:
        file = Gpus.of(node).path.with_name(f"stop-{name}")
        aside = file.with_name(f".{file.name}")
        aside.write_text(str(step))
        aside.rename(file)


def pods(cluster: Cluster, job: str, *, count: int = 1, namespace: str = JOBS) -> list[dict[str, Any]]:
    """The pods of a job by name, once there are so many."""
    found: list[dict[str, Any]] = []

    def look() -> None:
        selector = f"training.kubeflow.org/job-name={job}"
        text = cluster.kubectl("get", "pods", "--namespace", namespace, "--selector", selector, "--output", "json")
        found[:] = json.loads(text)["items"]
        if len(found) < count:
            raise NotYetError(f"{len(found)} of {count} pods")

    until(f"the pods of {job}", 30, look)
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def phase(cluster: Cluster, job: str, wanted: str, *, namespace: str = JOBS, limit_s: float = 180) -> None:
    """Until all pods of a job are in this phase."""

    def look() -> bool:
        return all(pod["status"]["phase"] == wanted for pod in pods(cluster, job, namespace=namespace))

    until(f"{job} {wanted}", limit_s, look)


def own_pythonpath(cluster: Cluster, name: str = "pythonpath", python: str = "python3") -> dict[str, Any]:
    """Runs a job whose image has a PYTHONPATH of its own; what it and a child process find there.

    `python` is the shell's command for its Python.
    """
    command = ("sh", "-c", f'exec {python} -c "$0"', _SAY)
    apply(cluster, waiting_job(name, command, image=PYTHONPATH_IMAGE))
    phase(cluster, name, "Succeeded")
    (pod,) = pods(cluster, name)
    return dict(json.loads(cluster.kubectl("logs", "--namespace", JOBS, pod["metadata"]["name"])))


def pods_as_made(cluster: Cluster) -> dict[str, str]:
    """Makes a job without annotation, and tells each of its pods as JSON, without what differs from run to run."""
    job = waiting_job("untouched", annotated=False, roles=("Master", "Worker"))
    apply(cluster, job)
    made = {pod["metadata"]["name"]: _lasting(pod) for pod in pods(cluster, "untouched", count=2)}
    cluster.kubectl("delete", "pytorchjob", "untouched", "--namespace", JOBS)
    return made


def _lasting(pod: dict[str, Any]) -> str:
    metadata, spec = dict(pod["metadata"]), dict(pod["spec"])
    for key in ("uid", "resourceVersion", "creationTimestamp"):
        del metadata[key]
    for owner in metadata["ownerReferences"]:
        del owner["uid"]
    spec.pop("nodeName", None)
    text = json.dumps([metadata, spec], indent=1, sort_keys=True)
    return re.sub(r"kube-api-access-\w{5}", "kube-api-access", text)
