"""`joulepath pause` and `resume`: what is written, whom they wait for, and what is told of those who don't answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.cli.clusters import kubeconfig
from tests.cli.command import Run
from tests.json_server import JsonHandler, serving

LOCATION = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
POLICY = "/apis/joulepath.dev/v1alpha1/energypolicies"
REPORTS = "/apis/joulepath.dev/v1alpha1/nodereports"


@dataclass
class Cluster:
    """An API server with nodes whose agents answer at once, but for those that say something else."""

    policy: dict[str, Any] | None = None
    known: bool = True
    """Whether it knows the kind."""
    refused: dict[str, int] = field(default_factory=dict)
    """Status by the end of a path."""
    nodes: dict[str, str] = field(default_factory=lambda: {"a": "", "b": ""})
    """What each says instead of the truth."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Of the policy."""
    accepted: list[str] = field(default_factory=list)
    """The types of lists that were asked for."""

    def word(self, node: str) -> str:
        paused = self.policy is not None and self.policy.get("paused")
        return self.nodes[node] or ("Paused" if paused else "Heard")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.accepted.append(self.headers["Accept"])
            if status := made.refused.get("nodereports"):
                self.answer(status, {"kind": "Status", "message": "no"})
                return
            rows = [{"cells": ["A100", made.word(node)], "object": {"metadata": {"name": node}}} for node in made.nodes]
            columns = [{"name": "GPUs"}, {"name": "Policy"}]
            self.answer(200, {"kind": "Table", "columnDefinitions": columns, "rows": rows, "metadata": {}})

        def do_PATCH(self) -> None:
            spec = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["spec"]
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            if status := made.refused.get("energypolicies"):
                self.answer(status, {"kind": "Status", "message": "no"})
            elif made.policy is None:
                self.answer(404, {"kind": "Status"})
            else:
                merged = {**made.policy, **spec}
                made.policy = {name: value for name, value in merged.items() if value is not None}
                self.answer(200, {"metadata": {"name": "default", **made.metadata}, "spec": made.policy})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if made.known:
                assert body["metadata"]["name"] == "default"
                made.policy = body["spec"]
            self.answer(201 if made.known else 404, body)

    with serving(Handler) as address:
        monkeypatch.setattr(LOCATION, str(kubeconfig(tmp_path, address)))
        yield made


def test_a_pause_makes_the_policy_says_why_and_waits_for_all_nodes(run: Run, cluster: Cluster) -> None:
    ran = run("pause", "--reason", "the grid")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("All plans are paused, and so say all nodes, 2, after ")
    assert cluster.policy == {"paused": True, "pauseReason": "the grid"}
    assert all("as=Table" in accepted for accepted in cluster.accepted), "whole reports are large"


def test_what_else_the_policy_says_stays_and_a_reason_goes_with_its_pause(run: Run, cluster: Cluster) -> None:
    cluster.policy = {"maxSlowdownPercent": 3}
    assert run("pause", "--reason", "first").status == 0
    assert run("pause").status == 0
    assert cluster.policy == {"maxSlowdownPercent": 3, "paused": True}
    ran = run("resume")
    assert (ran.status, cluster.policy) == (0, {"maxSlowdownPercent": 3, "paused": False})
    assert ran.out.startswith("All plans are no longer paused, and so say all nodes, 2, after ")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("Heard", "its agent hasn't heard of it: it is down, or can't reach the API server"),
        ("Pausing", "a plan is still carried out"),
        ("Unheard", "its agent can't read the EnergyPolicy"),
        (" ", "its agent or the CRDs are of an older release"),
    ],
)
def test_nodes_that_do_not_say_so_are_listed_with_what_that_means(
    run: Run, cluster: Cluster, word: str, why: str
) -> None:
    cluster.nodes["b"] = word
    ran = run("pause", "--timeout", "0.1")
    assert ran.status == 1
    first, *others = ran.out.splitlines()
    assert first == "All plans are paused, but 1 of 2 nodes haven't said so within 0.1 s:"
    assert [line.startswith(f"  b: {why}") for line in others] == [True]


def test_a_node_that_still_pauses_is_listed_by_resume(run: Run, cluster: Cluster) -> None:
    cluster.policy, cluster.nodes["a"] = {"paused": True}, "Paused"
    ran = run("resume", "--timeout", "0")
    assert ran.status == 1
    assert "  a: its agent hasn't heard of it" in ran.out


def test_without_a_policy_there_is_nothing_to_resume_and_without_agents_nobody_to_wait_for(
    run: Run, cluster: Cluster
) -> None:
    ran = run("resume")
    assert (ran.status, ran.out) == (0, "Nothing is paused: there is no EnergyPolicy default.\n")
    assert cluster.policy is None
    cluster.nodes = {}
    ran = run("pause")
    assert (ran.status, "No agent reports in this cluster" in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("metadata", "who", "remedy"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "power:joulepath.dev/EnergyPolicy:/default"}},
            "Argo CD (application power)",
            "argocd app set power --sync-policy none",
        ),
        (
            {"labels": {"argocd.argoproj.io/instance": "power"}},
            "Argo CD (application power)",
            "argocd app set power --sync-policy none",
        ),
        (
            {
                "labels": {"app.kubernetes.io/instance": "power"},
                "managedFields": [{"manager": "argocd-controller", "operation": "Apply"}],
            },
            "Argo CD (application power)",
            "argocd app set power --sync-policy none",
        ),
        (
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "power",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                }
            },
            "Flux (kustomization flux-system/power)",
            "flux suspend kustomization power --namespace flux-system",
        ),
        (
            {"managedFields": [{"manager": "helm-controller", "operation": "Update"}]},
            "Flux (helmrelease NAMESPACE/NAME)",
            "flux suspend helmrelease NAME --namespace NAMESPACE",
        ),
    ],
)
def test_whose_policy_stands_in_git_is_told_that_it_may_be_undone_and_what_to_do(
    run: Run, cluster: Cluster, metadata: dict[str, Any], who: str, remedy: str
) -> None:
    cluster.policy, cluster.metadata = {}, metadata
    for command, value in (("pause", "true"), ("resume", "false")):
        ran = run(command)
        assert ran.status == 0
        assert f"EnergyPolicy default is applied by {who}, which undoes this" in ran.err
        assert f"Write paused: {value} there (in Git) as well" in ran.err
        assert ran.err.endswith(f": {remedy}\n")
        assert ran.out.startswith("All plans are ")


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"app.kubernetes.io/instance": "joulepath", "app.kubernetes.io/managed-by": "Helm"}},
        {"managedFields": [{"manager": "kubectl", "operation": "Apply"}, {"manager": "OpenAPI-Generator"}]},
        {"labels": None, "annotations": None, "managedFields": None},
    ],
)
def test_a_policy_that_nobody_holds_to_git_is_paused_without_a_word_of_that(
    run: Run, cluster: Cluster, metadata: dict[str, Any]
) -> None:
    cluster.policy, cluster.metadata = {}, metadata
    assert run("pause").err == ""


def test_each_failure_is_a_sentence_that_says_whether_anything_was_changed(run: Run, cluster: Cluster) -> None:
    cluster.refused = {"energypolicies": 403}
    ran = run("pause")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "Nothing was changed: you may not create and patch energypolicies.joulepath.dev. Ask whoever" in ran.err
    cluster.refused = {"energypolicies": 422}
    assert "Nothing was changed: the API server answers 422" in run("pause").err
    cluster.refused, cluster.known = {}, False
    ran = run("pause")
    assert (ran.status, "doesn't know the kind EnergyPolicy. Apply the CRDs of this release" in ran.err) == (2, True)
    cluster.known, cluster.refused = True, {"nodereports": 403}
    ran = run("pause")
    assert ran.status == 2
    assert "It is written, but which nodes hold to it is unknown: you may not list nodereports" in ran.err
    assert cluster.policy == {"paused": True}


@pytest.mark.parametrize("timeout", ["soon", "-1", "nan"])
def test_a_time_that_is_none_is_told(run: Run, cluster: Cluster, timeout: str) -> None:
    ran = run("pause", f"--timeout={timeout}")
    assert (ran.status, "is no time to wait; write seconds" in ran.err) == (2, True)
    assert cluster.policy is None


def test_kubectl_finds_the_same_program(run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kubectl-energy"])
    cluster.refused = {"energypolicies": 403}
    assert run("pause").err.startswith("kubectl energy: Nothing was changed")
    assert "usage: kubectl energy pause" in run("pause", "--help").out
