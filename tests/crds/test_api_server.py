"""A real API server takes the definitions, fills in defaults, and refuses in sentences that say what to do.

The definitions are applied under a group of the test's own: what an installed release uses stays untouched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from joulepath_crds import (
    BlockingPower,
    Condition,
    Coordinates,
    EnergyPlanStatus,
    EnergyPolicySpec,
    EnergyProfileSpec,
    GpuReport,
    Granularity,
    JobPlanSpec,
    JobReport,
    KindProfile,
    NodeMeasurementStatus,
    NodeReportStatus,
    Phase,
    PlanSummary,
    ProfilePoint,
    Purpose,
    RankReport,
    StagePlan,
    StageProfile,
    Stretched,
    SwitchingLag,
    TargetLag,
    Topology,
    content_hash,
    measured_of,
    state_of,
)
from joulepath_crds.__main__ import documents
from real_cluster import Cluster, CommandError

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
TOPOLOGY = Topology(schedule="1F1B", stages=8, microbatches=12, gpu_model="A100", default_clock_mhz=1410)
JOB: Mapping[str, Any] = {"name": "gpt3"}
LAG = SwitchingLag(
    up_median_s=0.01,
    up_p95_s=0.02,
    down_median_s=0.01,
    down_p95_s=0.02,
    samples=6,
    targets=(
        TargetLag(clock_mhz=0, direction="up", median_s=0.01, p95_s=0.02, samples=3),
        TargetLag(clock_mhz=900, direction="down", median_s=0.01, p95_s=0.02, samples=3),
    ),
)


@dataclass(frozen=True, slots=True)
class Api:
    """The API server, with our kinds under a group of this test's own."""

    cluster: Cluster
    group: str

    def apply(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """Applies an object, server side, and returns what is stored."""
        body = {"apiVersion": f"{self.group}/v1alpha1", "kind": kind, "metadata": {"name": name}, **fields}
        answer = self.cluster.kubectl("apply", "--server-side", "-o", "json", "-f", "-", stdin=json.dumps(body))
        stored: dict[str, Any] = json.loads(answer)
        return stored

    def refusal(self, kind: str, name: str = "bad", **fields: Any) -> str:
        """What the API server says when it refuses an object."""
        with pytest.raises(CommandError) as refused:
            self.apply(kind, name, **fields)
        return str(refused.value)

    def write_status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """Writes the status, as operator and agent do."""
        resource = f"{kind.lower()}s.{self.group}"
        patch = json.dumps({"status": status})
        self.cluster.kubectl("patch", resource, name, "--subresource=status", "--type=merge", "-p", patch)

    def kubectl(self, verb: str, kind: str, *arguments: str) -> str:
        """kubectl VERB on a kind."""
        return self.cluster.kubectl(verb, f"{kind.lower()}s.{self.group}", *arguments)


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Api]:
    group = f"t{uuid4().hex[:8]}.joulepath.test"
    text = "\n---\n".join(one.replace("joulepath.dev", group) for one in documents().values())
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    names = [f"crd/{name.removesuffix('.yaml')}.{group}" for name in documents()]
    try:
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        yield Api(cluster, group)
    finally:
        cluster.kubectl("delete", "--wait=false", *names)


def _jobplan(**changes: Any) -> dict[str, Any]:
    stage = StagePlan(stage=0, order=("F0", "B0"), clocks_mhz=(1200, 0), durations_s=(0.1, 0.2))
    plan = JobPlanSpec(
        energy_plan="gpt3",
        job="gpt3",
        job_uid="0d3e",
        purpose=Purpose.ENFORCE,
        hash="00",
        stages=(stage,),
        default_clock_mhz=1410,
    )
    return {**plan.to_api(), **changes}


def _stretched(**changes: Any) -> dict[str, Any]:
    stage = {"stage": 0, "clocksMHz": [900, 800], "durationsSeconds": [0.2, 0.3], **changes}
    times = {"controlIterationTimeSeconds": 1.2, "planIterationTimeSeconds": 1.21}
    return {"replicas": [0, 2], "defaultReplicas": [1], "stages": [stage], **times}


def test_schemas_are_structural_and_rules_within_their_cost(api: Api) -> None:
    for name in documents():
        crd = json.loads(api.cluster.kubectl("get", "crd", f"{name.removesuffix('.yaml')}.{api.group}", "-o", "json"))
        conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
        assert conditions["NamesAccepted"] == conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_a_plan_with_only_a_job_gets_the_defaults(api: Api) -> None:
    spec = api.apply("EnergyPlan", "least", spec={"job": JOB})["spec"]
    assert spec == {
        "job": {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "gpt3"},
        "mode": "Enforce",
        "maxSlowdownPercent": 0,
        "granularity": "auto",
        "stragglers": "Stretch",
        "profiling": {"clocks": 12, "iterationsPerClock": 3, "maxSlowdownPercent": 67, "reuse": True},
        "measurement": {"blockIterations": 6, "pairs": 32},
    }


def test_a_part_of_the_profiling_keeps_the_other_defaults(api: Api) -> None:
    spec = api.apply("EnergyPlan", "part", spec={"job": JOB, "profiling": {"clocks": 5}})["spec"]
    assert spec["profiling"] == {"clocks": 5, "iterationsPerClock": 3, "maxSlowdownPercent": 67, "reuse": True}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_examples_are_accepted(api: Api, file: Path) -> None:
    for one in yaml.safe_load_all(file.read_text()):
        if one["kind"] == "EnergyPlan":
            api.apply("EnergyPlan", "example", spec=one["spec"])
            api.kubectl("delete", "EnergyPlan", "example")


def test_a_plan_that_no_operator_has_seen_says_so(api: Api) -> None:
    api.apply("EnergyPlan", "unseen", spec={"job": JOB})
    status = json.loads(api.kubectl("get", "EnergyPlan", "unseen", "-o", "json"))["status"]
    assert status["phase"] == "Pending"
    assert "check that the Joulepath operator runs: kubectl get pods" in status["message"]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"job": {**JOB, "kind": "MPIJob"}},
            "spec.job is a MPIJob of kubeflow.org/v1, but only PyTorchJob of kubeflow.org/v1, TrainJob of "
            "trainer.kubeflow.org/v1alpha1, JobSet of jobset.x-k8s.io/v1alpha2, Job of batch/v1 are supported: set "
            "spec.job.kind and spec.job.apiVersion to one of these",
        ),
        (
            {"job": {**JOB, "apiVersion": "batch/v1"}},
            "spec.job is a PyTorchJob of batch/v1, but only PyTorchJob of kubeflow.org/v1, ",
        ),
        ({"job": {**JOB, "kind": "TrainJob"}}, "spec.job is a TrainJob of kubeflow.org/v1, but only "),
        (
            {"job": JOB, "maxSlowdownPercent": 80},
            "spec.maxSlowdownPercent: Invalid value: 80: must be between 0 (no slowdown) and 50: set how many percent",
        ),
        ({"job": JOB, "mode": "enforce"}, 'spec.mode: Unsupported value: "enforce": supported values: "Enforce"'),
        ({"job": JOB, "granularity": "op"}, 'spec.granularity: Unsupported value: "op": supported values: "auto"'),
        (
            {"job": JOB, "profiling": {"clocks": 2}},
            "spec.profiling.clocks in body should be greater than or equal to 3",
        ),
        (
            {"job": JOB, "measurement": {"pairs": 3}},
            "spec.measurement.pairs in body should be greater than or equal to 4",
        ),
        ({"job": {}}, "spec.job.name: Required value"),
        ({}, "spec.job: Required value"),
        ({"job": JOB, "maxSlowdown": 3}, ".spec.maxSlowdown: field not declared in schema"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_bad_plan_is_refused_with_a_sentence(api: Api, spec: dict[str, Any], sentence: str) -> None:
    assert sentence in api.refusal("EnergyPlan", spec=spec)


def test_a_name_too_long_for_a_label_is_refused(api: Api) -> None:
    assert "choose a shorter name" in api.refusal("EnergyPlan", "n" * 64, spec={"job": JOB})


def test_a_plan_keeps_its_job(api: Api) -> None:
    api.apply("EnergyPlan", "kept", spec={"job": JOB})
    said = api.refusal("EnergyPlan", "kept", spec={"job": {"name": "other"}})
    assert (
        'spec.job.name is "other", but this EnergyPlan was made for "gpt3" and spec.job cannot change: '
        "make a new EnergyPlan for the other job"
    ) in said
    api.apply("EnergyPlan", "kept", spec={"job": JOB, "mode": "Observe"})


def test_the_status_is_its_own_and_get_tells_the_story(api: Api) -> None:
    api.apply("EnergyPlan", "story", spec={"job": JOB})
    plan = PlanSummary(
        hash="00",
        granularity=Granularity.PHASE,
        t_min_s=2.84,
        iteration_time_s=2.85,
        baseline_j=7000.0,
        energy_j=5950.0,
        lower_bound_j=5900.0,
        predicted_savings=0.15,
        bound_savings=0.157,
    )
    condition = Condition(
        type="Active", status="True", reason="Enforced", message="-", last_transition_time="2026-01-01T00:00:00Z"
    )
    status = EnergyPlanStatus(
        phase=Phase.ACTIVE,
        message="Measuring.",
        progress="5/8 pairs",
        topology=TOPOLOGY,
        plan=plan,
        predicted="15.0%",
        savings="15.2% ± 0.4",
        policy="By EnergyPolicy default, maxSlowdownPercent is 2, not 10.",
        conditions=(condition,),
    )
    api.write_status("EnergyPlan", "story", status.to_api())
    head, row = api.kubectl("get", "EnergyPlan", "story").splitlines()
    assert head.split() == ["NAME", "PHASE", "PROGRESS", "JOB", "T_MIN", "T", "PREDICTED", "SAVINGS", "AGE"]
    assert row.split()[:-1] == ["story", "Active", "5/8", "pairs", "gpt3", "2.84", "2.85", "15.0%", "15.2%", "±", "0.4"]
    assert "Measuring." in api.kubectl("get", "EnergyPlan", "story", "-o", "wide")
    api.apply("EnergyPlan", "story", spec={"job": JOB, "mode": "Observe"}, status={"phase": "Refused"})
    stored = json.loads(api.kubectl("get", "EnergyPlan", "story", "-o", "json"))
    assert stored["status"]["phase"] == "Active"
    assert EnergyPlanStatus.from_api(stored["status"]) == status


def test_two_conditions_of_one_type_are_refused(api: Api) -> None:
    api.apply("EnergyPlan", "twice", spec={"job": JOB})
    condition = {
        "type": "A",
        "status": "True",
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    with pytest.raises(CommandError, match="Duplicate value"):
        api.write_status("EnergyPlan", "twice", {"conditions": [condition, condition]})


def test_a_job_plan_is_accepted_and_activated(api: Api) -> None:
    api.apply("JobPlan", "plan", spec=_jobplan())
    stored = api.apply("JobPlan", "plan", spec=_jobplan(activateAt=40))
    assert JobPlanSpec.from_api(stored["spec"]).activate_at == 40


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"purpose": "Sweep"}, "spec.purpose is Sweep, but spec.sweep is absent: give the clocks to profile at"),
        ({"stages": []}, "spec.purpose is Enforce, but spec.stages is empty: give the clocks of every stage"),
        (
            {"stages": [{"stage": 0, "order": ["F0"], "clocksMHz": [], "durationsSeconds": [0.1]}]},
            "order, clocksMHz and durationsSeconds differ in length: give each instruction one entry in each",
        ),
        (
            {"stretched": _stretched(clocksMHz=[900])},
            "clocksMHz and durationsSeconds differ in length: give each instruction one entry in each",
        ),
        (
            {"sweep": {"clocksMHz": [900, 885], "toAndFroMHz": [885], "iterationsPerBlock": 4}},
            "toAndFroMHz and clocksMHz differ in length: give each block one entry in each, or none at all",
        ),
        ({"defaultClockMHz": 0}, "spec.defaultClockMHz in body should be greater than or equal to 1"),
    ],
)
def test_a_bad_job_plan_is_refused_with_a_sentence(api: Api, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in api.refusal("JobPlan", spec=_jobplan(**changes))


def test_what_is_for_a_straggler_is_stored_with_the_hash_that_it_has(api: Api) -> None:
    written = _jobplan(stretched=_stretched())
    stored = api.apply("JobPlan", "stretched", spec=written)["spec"]
    assert content_hash(stored) == content_hash(written) != content_hash(_jobplan())
    assert JobPlanSpec.from_api(stored).stretched == Stretched.from_api(_stretched())


def test_a_job_plan_keeps_its_job(api: Api) -> None:
    api.apply("JobPlan", "owned", spec=_jobplan())
    assert "its job cannot change: make a new JobPlan" in api.refusal("JobPlan", "owned", spec=_jobplan(jobUID="ff"))


def test_what_a_job_plan_hash_stands_for_is_stored_as_it_was_written(api: Api) -> None:
    """An older operator doesn't write a newer field: no default of it may come in between."""
    written = _jobplan(planIterationTimeSeconds=1.0, controlIterationTimeSeconds=0.1)
    del written["attempt"]
    stored = api.apply("JobPlan", "hashed", spec=written)["spec"]
    assert "attempt" not in stored
    assert content_hash(stored) == content_hash(written)


def test_a_plan_of_64_stages_and_512_microbatches_fits(api: Api) -> None:
    order = tuple(f"{kind}{microbatch}" for microbatch in range(512) for kind in "FB")
    stages = tuple(
        StagePlan(stage=stage, order=order, clocks_mhz=(1410,) * 1024, durations_s=(0.0123,) * 1024)
        for stage in range(64)
    )
    plain = JobPlanSpec.from_api(_jobplan()).model_copy(update={"stages": stages})
    for name, spec in (("large", plain), ("packed", plain.fitting())):
        stored = api.apply("JobPlan", name, spec=spec.to_api())["spec"]
        assert content_hash(stored) == content_hash(spec)
        assert JobPlanSpec.from_api(stored).unpacked().stages == stages


def test_a_profile_is_accepted(api: Api) -> None:
    point = ProfilePoint(clock_mhz=1410, time_s=0.1, energy_j=30.0)
    profile = EnergyProfileSpec(
        topology=TOPOLOGY,
        stages=(StageProfile(stage=0, kinds=(KindProfile(kind="F", points=(point,)),)),),
        blocking_power=(BlockingPower(clock_mhz=1410, power_w=83.6),),
        iteration_time_s=2.84,
        energy_per_iteration_j=7000.0,
        lag=LAG,
    )
    stored = api.apply("EnergyProfile", "gpt3", spec=profile.to_api())
    assert EnergyProfileSpec.from_api(stored["spec"]) == profile


def test_a_policy_is_stored_as_the_models_read_it_and_shows_whether_it_pauses(api: Api) -> None:
    stored = api.apply("EnergyPolicy", "default", spec={"paused": True, "pauseReason": "the grid"})
    assert EnergyPolicySpec.from_api(stored["spec"]) == EnergyPolicySpec(paused=True, pause_reason="the grid")
    head, row = api.cluster.kubectl("get", f"epol.{api.group}").splitlines()
    assert head.split() == ["NAME", "PAUSED", "REASON", "SLOWDOWN", "AGE"]
    assert row.split()[:4] == ["default", "true", "the", "grid"]
    example = yaml.safe_load((EXAMPLES / "04-policy/energypolicy.yaml").read_text())
    stored = api.apply("EnergyPolicy", "default", spec=example["spec"])
    assert EnergyPolicySpec.from_api(stored["spec"]) == EnergyPolicySpec.from_api(example["spec"])


@pytest.mark.parametrize(
    ("name", "spec", "sentence"),
    [
        ("second", {}, "one EnergyPolicy holds for the cluster, and its name is default: set metadata.name to that"),
        ("default", {"jobKinds": ["CronJob"]}, "jobs are of the kinds PyTorchJob, TrainJob, JobSet, Job: give some of"),
        ("default", {"maxSlowdownPercent": 51}, "should be less than or equal to 50"),
        ("default", {"minClocks": [{"gpuModel": "*"}]}, "spec.minClocks[0].clockMHz: Required value"),
        ("default", {"minClocks": [{"gpuModel": "*", "clockMHz": one} for one in (1, 2)]}, "duplicate entries for key"),
    ],
)
def test_a_bad_policy_is_refused_with_a_sentence(api: Api, name: str, spec: dict[str, Any], sentence: str) -> None:
    assert sentence in api.refusal("EnergyPolicy", name, spec=spec)


def test_a_policy_that_lets_no_namespace_in_is_taken_for_a_slip(api: Api) -> None:
    """By a request that leaves an empty list as it is; server-side apply doesn't."""
    body = {"apiVersion": f"{api.group}/v1alpha1", "kind": "EnergyPolicy", "metadata": {"name": "default"}}
    text = json.dumps({**body, "spec": {"namespaces": {"names": [], "matchLabels": {}}}})
    with pytest.raises(CommandError, match="names none: give names or matchLabels"):
        api.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=text)


def test_what_a_node_tells_is_a_status_and_nothing_else(api: Api) -> None:
    rank = RankReport(
        rank=0,
        pod="gpt3-master-0",
        pod_uid="0d3e",
        gpu_uuid="GPU-1",
        coordinates=Coordinates(),
        stages=(0,),
        stage_count=8,
        schedule="1F1B",
        microbatches=12,
    )
    gpu = GpuReport(uuid="GPU-1", model="A100", default_clock_mhz=1410, supported_clocks_mhz=(1410, 1395), lag=LAG)
    report = NodeReportStatus(
        policy="Paused",
        gpus=(gpu,),
        jobs=(JobReport(job_uid="0d3e", namespace="default", job="gpt3", world_size=8, ranks=(rank,)),),
    )
    measured = NodeMeasurementStatus(packed=measured_of(report).packed())
    told = {"NodeReport": report, "NodeState": state_of(report), "NodeMeasurement": measured}
    for kind, status in told.items():
        api.apply(kind, "node0")
        api.write_status(kind, "node0", status.to_api())
        stored = json.loads(api.kubectl("get", kind, "node0", "-o", "json"))
        assert type(status).from_api(stored["status"]).to_api() == status.to_api()
    assert api.kubectl("get", "NodeState", "node0").splitlines()[1].split()[:3] == ["node0", "gpt3", "Observing"]
    assert api.kubectl("get", "NodeReport", "node0").splitlines()[1].split()[:2] == ["node0", "A100"]


def test_explain_tells_a_newcomer_what_each_field_is(api: Api) -> None:
    def explain(path: str) -> str:
        return " ".join(api.cluster.kubectl("explain", path, f"--api-version={api.group}/v1alpha1").split())

    assert "asks Joulepath to save energy in one training job" in explain("energyplan")
    spec = explain("energyplan.spec")
    assert "an iteration (one optimizer step) may last, in percent" in spec
    assert "Default: Enforce" in spec
    assert "Seconds" in explain("energyplan.status.plan")
    assert "watts" in explain("nodereport.status.jobs.ranks.instructions").lower()
    assert "in MHz" in explain("jobplan.spec.stages")
