"""Jobs of other kinds than PyTorchJob, against a real API server and its own Jobs; the nodes' reports are simulated.

JobSet and the Kubeflow Trainer aren't there: what they would make is made by hand, of kinds that come while the
operator runs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import ANNOTATION, JOB_NAMES, JobKindName
from joulepath_operator.jobs.job import Job
from tests.operator.test_with_api import Api, api

__all__ = ["api"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PYTORCH_JOB, TRAIN_JOB, JOB_SET, JOB = JOB_NAMES
WAITING = {"NotInjected", "PodsNotRunning", "NoAgent", "AgentNotReady", "WaitingForRanks", "PodsUnsuited"}
"""What may be told of pods that no node can run, with a release beside the test or without one."""


def definition(kind: JobKindName) -> dict[str, Any]:
    """The kind with any fields."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {"group": kind.group, "names": names, "scope": "Namespaced", "versions": [version]},
    }


@pytest.fixture
def definitions(api: Api) -> Iterator[list[dict[str, Any]]]:
    """Of kinds that aren't there yet, and are taken out at the end."""
    made = [definition(JOB_SET), definition(TRAIN_JOB)]
    there = api.cluster.kubectl("get", "crd", *(one["metadata"]["name"] for one in made), "--ignore-not-found")
    assert not there, "somebody's own are not to be replaced"
    yield made
    for one in made:
        api.cluster.kubectl("delete", "crd", one["metadata"]["name"], "--ignore-not-found")


def make(api: Api, kind: JobKindName, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """An object, and the reference by which it controls others."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **metadata}, "spec": spec}
    api.apply(body, "--namespace", api.namespace)
    made = api.cluster.kubectl("get", f"{kind.plural}.{kind.group}", name, "--namespace", api.namespace, "-o", "json")
    owner = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "controller": True}
    return owner | {"uid": json.loads(made)["metadata"]["uid"]}


def unschedulable(**fields: Any) -> dict[str, Any]:
    """An indexed Job that no node can run: its pods are made, and stay."""
    container = {"name": "trainer", "image": "none", "resources": {"limits": {"nvidia.com/gpu": 100}}}
    pod = {"restartPolicy": "OnFailure", "containers": [container]}
    template = {"metadata": {"labels": {JOB_SET.pod_label: "gpt3"}}, "spec": pod}
    return {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "template": template, **fields}


def ask(api: Api, kind: JobKindName) -> None:
    api.create_energy_plan(job={"apiVersion": kind.api_version, "kind": kind.kind, "name": "gpt3"})


def profile(api: Api, uid: str) -> None:
    """The ranks of the job report, and are profiled."""
    api.world.job = replace(api.world.job, uid=uid)
    api.phase("Profiling", training=True)
    (plan,) = api.until(lambda: api.items("jobplans"))
    assert plan["spec"]["jobUID"] == uid


def pods(api: Api) -> set[str]:
    """The UIDs of the pods that aren't going."""
    found = json.loads(api.cluster.kubectl("get", "pods", "--namespace", api.namespace, "--output", "json"))["items"]
    return {one["metadata"]["uid"] for one in found if "deletionTimestamp" not in one["metadata"]}


def test_a_job_of_kubernetes_own_is_followed_from_its_suspension_to_its_deletion(api: Api) -> None:
    with api.operator():
        ask(api, JOB)
        api.until(lambda: "There is no Job gpt3" in api.status().get("message", ""))
        annotated = {"annotations": {ANNOTATION: "plan"}}
        made = make(api, JOB, "gpt3", unschedulable(suspend=True), **annotated)
        api.until(lambda: api.reason("Injected") == "Suspended")
        make(api, JOB, "gpt3", unschedulable(suspend=False), **annotated)
        api.until(lambda: api.reason("Injected") in WAITING)
        assert " of 2 pods " in api.status()["message"]
        before, anew = pods(api), Job().restart_command(api.namespace, "gpt3")
        subprocess.run(anew, shell=True, check=True, env={**os.environ, **api.cluster.environment}, timeout=120)
        api.until(lambda: len(pods(api) - before) == 2)
        profile(api, made["uid"])
        api.cluster.kubectl("delete", "job", "gpt3", "--namespace", api.namespace)
        api.phase("Completed")
        api.until(lambda: not api.items("jobplans"))  # written after the status


def test_a_train_job_is_followed_through_what_it_has_made_though_its_kind_came_after_the_operator(
    api: Api, definitions: list[dict[str, Any]]
) -> None:
    with api.operator():
        ask(api, TRAIN_JOB)
        api.until(lambda: "There is no TrainJob gpt3" in api.status().get("message", ""))
        for one in definitions:
            api.apply(one)
            api.cluster.kubectl("wait", "crd", one["metadata"]["name"], "--for=condition=Established", "--timeout=60s")
        train = make(api, TRAIN_JOB, "gpt3", {"suspend": False}, annotations={ANNOTATION: "plan"})
        api.until(lambda: "has no pods yet" in api.status().get("message", ""))
        made = make(api, JOB_SET, "gpt3", {"suspend": False}, ownerReferences=[train])
        make(api, JOB, "gpt3-node-0", unschedulable(), ownerReferences=[made])
        api.until(lambda: api.reason("Injected") in WAITING)
        assert " of 2 pods " in api.status()["message"]
        profile(api, train["uid"])
