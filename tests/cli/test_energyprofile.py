"""Profiles of the cluster: the same plans from a manifest on disk and from an API server."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from joulepath_bridge.pipeline import profile_of, tails_of, transfers_of
from joulepath_crds import EnergyProfileSpec, SwitchingCost
from joulepath_planner import LagTable, Pipeline, one_f_one_b, simulate
from real_cluster import Cluster
from tests.cli.command import Run
from tests.planner.pipelines import CLOCKS

DEFINITIONS = Path(__file__).parents[2] / "crds/energyprofiles.yaml"
LOCATION = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"


@pytest.fixture
def namespace(cluster: Cluster, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace of the real cluster with this one profile; the current kubeconfig is the cluster's."""
    name = f"cli-{uuid4().hex[:8]}"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", DEFINITIONS)
    cluster.kubectl("create", "namespace", name)
    try:
        stored = {**manifest, "metadata": {"name": "gpt3", "namespace": name}}
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(stored))
        monkeypatch.setattr(LOCATION, str(cluster.kubeconfig))
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_shape_lags_and_tails_come_with_the_profile(run: Run, yaml_file: Path) -> None:
    ran = run("plan", yaml_file, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["schedule"], len(found["ranks"]), len(found["ranks"][0]["instructions"])) == ("1f1b", 4, 12)
    assert "lag 4 ms (p95)" in run("plan", yaml_file).out
    assert "lag" not in run("plan", yaml_file, "--lag-ms", 0).out.splitlines()[0]
    untailed = json.loads(run("plan", yaml_file, "--tail-ms", 0, "--json").out)
    assert found["t_min_s"] == pytest.approx(untailed["t_min_s"] + 0.01)


def test_what_switches_cost_the_job_is_planned_with_in_any_schedule(
    run: Run, spec: EnergyProfileSpec, manifest: dict[str, object], tmp_path: Path
) -> None:
    job = Pipeline(one_f_one_b(4, 6), profile_of(spec), transfer_s=transfers_of(spec), tail_s=tails_of(spec))
    clocks = [[(None, CLOCKS[1])[place % 2] for place in range(len(order))] for order in job.schedule.orders]
    free_s, dear_s = (
        simulate(job, clocks, replace(LagTable.constant(0.0), pause_s=one)).iteration_time_s for one in (0.0, 0.004)
    )
    cost = SwitchingCost(
        clocks_mhz=CLOCKS[:2], longer_s=dear_s - free_s, longer_half_s=1e-4, more_j=0.0, more_half_j=0.0
    )
    tried = tmp_path / "tried.yaml"
    told = spec.model_copy(update={"switching": cost})
    tried.write_text(yaml.safe_dump({**manifest, "spec": told.to_api()}))

    def planned(*options: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("plan", tried, "--json", *options).out)
        return found

    for shape in ((), ("--schedule", "gpipe", "--microbatches", 3)):
        assert planned(*shape)["switches"] < planned(*shape, "--switch-ms", 0)["switches"]
        title = run("plan", tried, *shape).out.splitlines()[0]
        (held_up_ms,) = re.findall(r"held up for ([\d.]+) ms by a switch", title)
        assert float(held_up_ms) == pytest.approx(4, rel=0.05)
    assert "held up" not in run("plan", tried, "--switch-ms", 0).out


def test_its_standard_errors_are_jitter(run: Run, yaml_file: Path) -> None:
    found = json.loads(run("plan", yaml_file, "--quantile", "95%", "--samples", 20, "--json").out)
    assert found["jitter"]["samples"] == 20


def test_what_the_command_line_says_goes_before_the_profile(run: Run, yaml_file: Path) -> None:
    found = json.loads(run("plan", yaml_file, "--schedule", "gpipe", "--microbatches", 3, "--json").out)
    assert (found["schedule"], len(found["ranks"][0]["instructions"])) == ("gpipe", 6)


@pytest.mark.cluster
def test_a_profile_of_the_cluster_is_the_same(run: Run, yaml_file: Path, namespace: str) -> None:
    assert run("plan", f"energyprofile/{namespace}/gpt3", "--json").out == run("plan", yaml_file, "--json").out
    ran = run("plan", f"energyprofile/{namespace}/other", "--json")
    assert ran.status == 2
    assert "/other: the cluster answers 404 Not Found; kubectl get energyprofiles -A tells" in ran.err


def test_no_cluster_and_no_name_are_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOCATION, str(tmp_path / "none"))
    ran = run("plan", "energyprofile/ml/gpt3")
    assert ran.status == 2
    assert "no cluster is configured" in ran.err
    assert "set KUBECONFIG" in ran.err
    assert "write energyprofile/NAMESPACE/NAME" in run("plan", "energyprofile/gpt3").err


def test_a_manifest_that_is_none_is_told_with_the_field(run: Run, manifest: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("kind: ConfigMap\n")
    assert "holds no object of kind EnergyProfile" in run("plan", path).err
    path.write_text("a: [1\n")
    assert "is no YAML" in run("plan", path).err
    bad = copy.deepcopy(manifest)
    bad["spec"]["stages"][0]["kinds"][0]["points"][0]["timeSeconds"] = -1
    path.write_text(yaml.safe_dump(bad))
    ran = run("plan", path)
    assert ran.status == 2
    assert "spec.stages.0.kinds.0.points.0.timeSeconds" in ran.err
    recorded = copy.deepcopy(manifest)
    recorded["spec"]["topology"]["schedule"] = "Recorded"
    path.write_text(yaml.safe_dump(recorded))
    assert "give --schedule a name or a file" in run("plan", path).err


def test_a_job_without_a_pipeline_is_planned_as_one_stage(run: Run, manifest: dict[str, Any], tmp_path: Path) -> None:
    alone = copy.deepcopy(manifest)
    spec = alone["spec"]
    spec["topology"] |= {"schedule": "NoPipeline", "stages": 1, "microbatches": 2}
    spec["stages"], spec["transfers"] = spec["stages"][:1], []
    path = tmp_path / "alone.yaml"
    path.write_text(yaml.safe_dump(alone))
    ran = run("plan", path, "--slowdown", "5%", "--json")
    assert ran.status == 0, ran.err
    (rank,) = json.loads(ran.out)["ranks"]
    assert len(rank["instructions"]) == 4
