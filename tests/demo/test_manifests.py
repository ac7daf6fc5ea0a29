"""The example's manifests: readable as they are, and fitted to a cluster without losing anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from demo.manifests import TrainingPlace, energy_plan, python_volumes, pytorch_job
from demo.options import Options, parse
from demo.workloads import WORKLOADS, Workload
from joulepath_crds import ANNOTATION, EnergyPlanSpec, Granularity, Mode

GPT3 = WORKLOADS["gpt3"].example
every_workload = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
PLACE = TrainingPlace("team", "registry/image:1", "Never", Path("/env/bin/python"), (Path("/env"), Path("/base")))


@every_workload
def test_the_energy_plan_is_valid_and_names_the_job(workload: Workload) -> None:
    plan = energy_plan(workload.example, "team", "Observe", "phase")
    spec = EnergyPlanSpec.from_api(plan["spec"])
    job = pytorch_job(workload.example, PLACE, 220)
    assert plan["metadata"] == {"name": workload.name, "namespace": "team"}
    assert (spec.mode, spec.granularity) == (Mode.OBSERVE, Granularity.PHASE)
    assert spec.job.name == job["metadata"]["name"]
    assert job["metadata"]["annotations"][ANNOTATION] == plan["metadata"]["name"]


@every_workload
def test_the_energy_plan_knows_every_field_that_the_example_sets(workload: Workload) -> None:
    written = yaml.safe_load((workload.example / "energyplan.yaml").read_text())["spec"]
    understood = EnergyPlanSpec.from_api(written).to_api()

    def known(part: object, whole: object) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(key in whole and known(value, whole[key]) for key, value in part.items())
        return part == whole

    assert known(written, understood)


def test_eight_ranks_on_two_nodes_with_four_gpus_each() -> None:
    job = pytorch_job(GPT3, PLACE, 220)
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert replicas.keys() == {"Master", "Worker"}
    assert job["spec"]["nprocPerNode"] == "4"
    for replica in replicas.values():
        (container,) = replica["template"]["spec"]["containers"]
        assert replica["replicas"] == 1
        assert container["name"] == "pytorch"
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_only_what_differs_between_machines_is_overlaid() -> None:
    job = pytorch_job(GPT3, PLACE, 77)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert (container["image"], container["imagePullPolicy"]) == ("registry/image:1", "Never")
        assert container["command"] == ["/env/bin/python", "-m", "torch.distributed.run", "/workload/train.py"]
        assert container["args"] == ["--steps", "77", "--microbatches", "12"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"shm": "/dev/shm", "python-0": "/env", "python-1": "/base"}
        assert {volume["name"] for volume in pod["volumes"]} == mounts.keys()
        claim = {"claimName": "python-0", "readOnly": True}
        assert {"name": "python-0", "persistentVolumeClaim": claim} in pod["volumes"]


def test_a_folder_that_only_root_may_enter_is_open_to_the_training() -> None:
    place = replace(PLACE, closed_folders=(Path("/root"),), host_folders=(Path("/root/env"),))
    job = pytorch_job(GPT3, place, 77)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        assert {"name": "open-0", "mountPath": "/root"} in pod["containers"][0]["volumeMounts"]
        assert {"name": "open-0", "emptyDir": {}} in pod["volumes"]


def test_each_claim_of_the_job_is_bound_to_a_volume_of_its_folder() -> None:
    volumes = python_volumes(PLACE)
    claims = {one["metadata"]["name"]: one for one in volumes if one["kind"] == "PersistentVolumeClaim"}
    by_claim = {one["spec"]["claimRef"]["name"]: one for one in volumes if one["kind"] == "PersistentVolume"}
    job = pytorch_job(GPT3, PLACE, 77)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        named = {
            one["name"]: one["persistentVolumeClaim"]["claimName"]
            for one in pod["volumes"]
            if len(one) == 2 and "persistentVolumeClaim" in one
        }
        assert named.keys() == {"python-0", "python-1"}
        for volume, claim in named.items():
            made = by_claim[claim]
            assert made["spec"]["local"]["path"] == mounts[volume]
            assert made["metadata"]["name"] == claims[claim]["spec"]["volumeName"]
            assert claims[claim]["metadata"]["namespace"] == made["spec"]["claimRef"]["namespace"] == "team"


def test_the_training_lasts_five_minutes_at_least_at_any_scale() -> None:
    assert Options(time_scale=0.4).training_steps == 282
    assert Options(time_scale=0.1).training_steps > 1000
    assert (
        Options().training_steps == Options(time_scale=2).training_steps == 250
    )  # a sweep, the trial of switches and eight pairs need as many
    assert Options(workload=WORKLOADS["megatron"]).training_steps == 250
    assert Options(workload=WORKLOADS["straggler"]).training_steps == 450, "two times eight pairs"
    assert Options(steps=9).training_steps == 9


@pytest.mark.parametrize(
    "words",
    [
        ["--time-scale", "0"],
        ["--lag-ms", "-1"],
        ["--cluster", "mine"],
        ["--workload", "straggler", "--cluster", "current"],
        ["--workload", "straggler", "--mode", "Observe"],
    ],
)
def test_options_that_make_no_sense_end_with_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
