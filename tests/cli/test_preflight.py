"""`joulepath preflight`: what is found of clusters as they are, and what is asked of an API server for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulepath_cli.commands.preflight import facts
from joulepath_cli.commands.preflight.cluster import GROUPS
from joulepath_cli.commands.preflight.facts import Facts, Pod, Report, Slice, Unread
from joulepath_cli.commands.preflight.finding import Finding, Verdict
from joulepath_cli.commands.preflight.judge import judge
from joulepath_cli.commands.preflight.report import as_text
from joulepath_cli.commands.preflight.runtimes import Injection
from tests.cli.clusters import EKS, GKE, KIND, OPENSHIFT, OURS, ApiDouble, api_double, kubeconfig, node
from tests.cli.command import Run

LOCATION = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
NAMESPACE = "joulepath-system"
JOB = frozenset({"v1/pytorchjobs", "v1/mpijobs"})
KINDS = frozenset(
    f"v1alpha1/{name}"
    for name in (
        *("energyplans", "energypolicies", "energyprofiles", "jobplans"),
        *("nodereports", "nodestates", "nodemeasurements"),
    )
)
OK, LACKS, UNKNOWN = Verdict


def cluster(*nodes: dict[str, Any], **kinds: frozenset[str]) -> Facts:
    """A cluster with these nodes and the training operator, and without Joulepath."""
    served: dict[str, frozenset[str] | Unread] = {group: frozenset() for group in GROUPS}
    return Facts(
        namespace=NAMESPACE,
        version="v1.33.1",
        kinds={**served, "kubeflow.org": JOB, **kinds},
        nodes=tuple(map(facts.node, nodes)),
        slices=(),
        namespaces={},
        pods=(),
        reports=(),
    )


def agent(of: str, *more: str, ready: bool = True, host_pid: bool = False) -> Pod:
    return Pod(f"agent-{of}", "agent", of, "Running", ready, ("agent", "clocks", "warden", *more), host_pid)


def report(of: str, *refused: str, switched: int = 0, injections: int = 0) -> Report:
    return Report(of, 8, refused, switched, injections)


def only(of: Facts, check: str, asked: Injection | None = None) -> Finding:
    """The one finding of this check."""
    (found,) = [one for one in judge(of, asked).findings if one.check == check]
    return found


def test_gke_with_containerd_1_7_has_volumes_and_is_told_how_to_have_nri() -> None:
    told = judge(cluster(GKE))
    assert (told.works, told.injection) == (False, Injection.VOLUMES)
    assert [one.check for one in told.findings if one.is_missing] == ["node label"], "GKE labels GPUs in its own way"
    runtime = only(cluster(GKE), "runtime")
    assert (runtime.verdict, runtime.needed) == (LACKS, False)
    assert 'disable = false` under [plugins."io.containerd.nri.v1.nri"]' in runtime.remedy
    assert "agent.hostPID=true" in only(cluster(GKE), "kernel").remedy
    assert "nri on 0 of 1" in only(cluster(GKE), "injection").seen


@pytest.mark.parametrize("where", [EKS, OPENSHIFT, OURS], ids=["EKS", "OpenShift", "ours"])
def test_where_nri_is_on_by_default_the_kernel_may_be_old(where: dict[str, Any]) -> None:
    told = judge(cluster(where))
    assert (told.works, told.injection) == (True, Injection.NRI)
    assert only(cluster(where), "kernel").verdict is OK
    assert "by default" in only(cluster(where), "runtime").seen


def test_kind_lacks_gpus_and_is_told_nothing_of_runtimes() -> None:
    told = judge(cluster(KIND))
    assert (told.works, told.injection) == (False, None)
    assert [one.check for one in told.findings if one.is_missing] == ["GPU nodes"]
    assert "runtime" not in {one.check for one in told.findings}
    labelled = only(cluster(node("a", "containerd://2.1.3", resources={"nvidia.com/gpu": "0"})), "GPU nodes")
    assert "By their labels there are some on a" in labelled.seen


def test_openshift_asks_for_its_constraints_until_an_agent_is_ready() -> None:
    of = cluster(OPENSHIFT, **{"security.openshift.io": frozenset({"v1/securitycontextconstraints"})})
    assert only(of, "OpenShift").verdict is UNKNOWN
    assert "add-scc-to-user privileged -z joulepath-agent" in only(of, "OpenShift").command
    assert only(replace(of, pods=(agent("worker-3.ocp.example"),)), "OpenShift").verdict is OK


@pytest.mark.parametrize(
    ("runtime", "image", "verdict", "says"),
    [
        ("containerd://2.0.0", "Ubuntu", OK, "on by default"),
        ("containerd://1.7.13-k3s1", "Ubuntu", LACKS, "is off unless"),
        ("containerd://1.6.36", "Ubuntu", LACKS, "there since 1.7"),
        ("cri-o://1.30.0", "Ubuntu", OK, "on by default"),
        ("cri-o://1.29.11", "Ubuntu", LACKS, "is off unless"),
        ("cri-o://1.25.5", "Ubuntu", LACKS, "there since 1.26"),
        ("docker://27.3.1", "Ubuntu", LACKS, "Docker Engine has no NRI"),
        ("containerd://2.1.5", "Talos (v1.13.2)", LACKS, "Talos before 1.14"),
        ("containerd://2.3.1", "Talos (v1.14.0)", OK, "on by default"),
        ("containerd://Unknown", "Ubuntu", UNKNOWN, "version can't be read"),
        ("frakti://1.0", "Ubuntu", UNKNOWN, "isn't known"),
        ("", "Ubuntu", UNKNOWN, "isn't known"),
    ],
)
def test_the_runtime_tells_who_can_inject(runtime: str, image: str, verdict: Verdict, says: str) -> None:
    of = cluster(node("a", runtime, image=image))
    found = only(of, "runtime")
    assert found.verdict is verdict
    assert says in found.seen
    assert judge(of).injection is (Injection.NRI if verdict is OK else Injection.VOLUMES)
    assert only(of, "runtime", Injection.VOLUMES).verdict is OK, "volumes ask nothing of it"
    shown = replace(of, reports=(report("a", injections=1),))
    assert judge(shown).injection is Injection.NRI, "what an agent has seen is truer"


def test_nodes_are_told_by_their_runtimes() -> None:
    of = cluster(
        *(node(f"new{one}", f"containerd://2.{one}.0") for one in range(5)), node("old", "containerd://1.7.24")
    )
    runtimes = [one for one in judge(of).findings if one.check == "runtime"]
    assert [one.seen.partition(":")[0] for one in runtimes] == [
        "containerd 2.0.0, 2.1.0, 2.2.0 and 2 more on new0, new1, new2 and 2 more",
        "containerd 1.7.24 on old",
    ]
    assert "nri on 5 of 6 GPU nodes as it is, volumes on all" in only(of, "injection").seen
    wanted = only(of, "injection", Injection.NRI)
    assert (wanted.verdict, wanted.needed) == (LACKS, False)
    assert only(cluster(GKE), "injection", Injection.NRI).is_missing
    assert only(cluster(node("a", "frakti://1.0")), "injection", Injection.NRI).verdict is UNKNOWN


@pytest.mark.parametrize(
    ("resources", "labels", "verdict", "says"),
    [
        ({"nvidia.com/gpu": "8"}, {}, OK, "8 whole GPUs on 1 node: a."),
        ({"nvidia.com/gpu": "4", "nvidia.com/mig-1g.5gb": "28"}, {}, OK, "4 whole GPUs on 1 node: a. Parts"),
        ({"nvidia.com/mig-1g.5gb": "7"}, {}, LACKS, "as a offers"),
        ({"nvidia.com/gpu": "56"}, {"nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb"}, LACKS, "as a offers"),
        ({"nvidia.com/gpu.shared": "32"}, {}, LACKS, "as a offers"),
        ({"nvidia.com/gpu": "32"}, {"nvidia.com/gpu.replicas": "4"}, LACKS, "as a offers"),
        ({"nvidia.com/gpu": "3"}, {"cloud.google.com/gke-gpu-sharing-strategy": "mps"}, LACKS, "as a offers"),
        ({"nvidia.com/gpu": "7"}, {"cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, LACKS, "as a offers"),
        ({"amd.com/gpu": "8"}, {}, LACKS, "none offers nvidia.com/gpu"),
    ],
)
def test_whole_gpus_count_and_parts_are_refused(
    resources: dict[str, str], labels: dict[str, str], verdict: Verdict, says: str
) -> None:
    found = only(cluster(node("a", "containerd://2.1.4", resources=resources, labels=labels)), "GPU nodes")
    assert found.verdict is verdict
    assert says in found.seen
    assert found.needed


def test_gpus_that_are_claimed_count_too() -> None:
    of = cluster(node("a", "containerd://2.1.4", resources={}))
    assert "By DRA alone on a" in only(replace(of, slices=(Slice("a", 8, 0),)), "GPU nodes").seen
    assert only(replace(of, slices=(Slice("a", 0, 7),)), "GPU nodes").is_missing
    unread = Unread("you may not list resourceslices.resource.k8s.io", "Ask.")
    assert only(replace(of, slices=unread), "GPU nodes").verdict is UNKNOWN
    devices = [{"name": "gpu-0"}, {"name": "gpu-1"}, {"name": "gpu-2-mig-1g5gb-19-0"}, {"name": "imex-1"}]
    assert facts.resource_slice({"spec": {"driver": "gpu.nvidia.com", "nodeName": "a", "devices": devices}}) == Slice(
        "a", 2, 1
    )
    assert facts.resource_slice({"spec": {"driver": "cpu.example", "nodeName": "a", "devices": devices}}) is None


@pytest.mark.parametrize(
    ("kernel", "asked", "missing", "says"),
    [
        ("6.5.0-1018-aws", Injection.VOLUMES, False, "6.5.0-1018-aws."),
        ("6.4.16", Injection.VOLUMES, True, "before 6.5"),
        ("5.14.0-427.42.1.el9_4.x86_64", Injection.VOLUMES, True, "before 6.5"),
        ("5.14.0-427.42.1.el9_4.x86_64", None, False, "before 6.5"),
        ("4.18.0-553.el8_10.x86_64", None, True, "before 5.3"),
        ("4.18.0-553.el8_10.x86_64", Injection.NRI, False, "on any kernel"),
    ],
)
def test_by_volumes_the_kernel_has_to_tell_who_asks(
    kernel: str, asked: Injection | None, missing: bool, says: str
) -> None:
    of = cluster(node("a", "containerd://1.7.24", kernel))
    found = only(of, "kernel", asked)
    assert found.is_missing is missing
    assert says in found.seen


def test_agents_that_see_the_hosts_processes_are_enough_for_an_older_kernel() -> None:
    of = replace(cluster(node("a", "containerd://1.7.24", "5.15.0-131-generic")), pods=(agent("a", host_pid=True),))
    assert only(of, "kernel").verdict is OK
    assert only(replace(of, pods=(agent("a"),)), "kernel").is_missing, "that release is by volumes"


def test_windows_and_arm64_are_told() -> None:
    windows = node("w", "containerd://1.7.24", "10.0.20348.2700", "Windows Server 2022", platform="windows/amd64")
    arm = node("g", "containerd://2.1.4", platform="linux/arm64")
    assert "windows/amd64" in only(cluster(windows, EKS), "platform").seen
    assert judge(cluster(windows, EKS)).works
    assert judge(cluster(windows, EKS)).injection is Injection.NRI
    assert not judge(cluster(windows)).works
    assert only(cluster(arm), "platform").verdict is UNKNOWN
    assert "docker buildx" in only(cluster(arm), "platform").remedy


def test_the_label_that_agents_ask_for_is_told_where_no_agent_is() -> None:
    bare = node("a", "containerd://2.1.4", labels={})
    assert only(cluster(bare), "node label").is_missing
    assert only(cluster(bare), "node label").command == "kubectl label node NAME nvidia.com/gpu.present=true"
    assert not only(cluster(bare, EKS), "node label").is_missing, "there is a node where an agent goes"
    assert only(cluster(bare, EKS), "node label").verdict is LACKS
    assert only(replace(cluster(bare), pods=(agent("a"),)), "node label").verdict is OK


@pytest.mark.parametrize(
    ("reports", "verdict", "says"),
    [
        ((), UNKNOWN, "can't tell"),
        ((report("node0"),), UNKNOWN, "can't tell"),
        ((report("node0", switched=4),), OK, "Clocks were set on node0"),
        ((report("node0", "NVML gives no permission to set clocks"),), LACKS, "no clock be set on node0"),
        ((report("node0", "it is in MIG mode"),), UNKNOWN, "can't tell"),
    ],
)
def test_agents_tell_whether_the_driver_lets_clocks_be_set(
    reports: tuple[Report, ...], verdict: Verdict, says: str
) -> None:
    found = only(replace(cluster(OURS), reports=reports), "driver permission")
    assert found.verdict is verdict
    assert says in found.seen


def test_a_doctor_that_has_ended_is_asked_by_its_log() -> None:
    doctor = Pod("doctor-x", "doctor", "node0", "Succeeded", ready=False, containers=("examination",), host_pid=False)
    of = replace(cluster(OURS), pods=(doctor,))
    assert only(of, "driver permission").command == "kubectl -n joulepath-system logs doctor-x"
    assert not of.installed


def test_what_an_agent_reports_is_what_is_read() -> None:
    """As an agent writes it: no field's name is wrong here."""
    from joulepath_crds import GpuReport, NodeReportStatus, SwitchingLag
    from joulepath_crds.nodereport import InjectionReport

    lag = SwitchingLag(up_median_s=0.01, up_p95_s=0.01, down_median_s=0.01, down_p95_s=0.01, samples=3)
    gpu = GpuReport(uuid="GPU-1", model="A100", default_clock_mhz=1410, supported_clocks_mhz=(1410,), lag=lag)
    refused = gpu.model_copy(update={"uuid": "GPU-2", "lag": None, "refused": "no permission"})
    injected = InjectionReport(pod_uid="u", namespace="ml", pod="p", container="c", outcome="Injected")
    status = NodeReportStatus(gpus=(gpu, refused), injection=(injected,))
    body = {"metadata": {"name": "node0"}, "status": status.to_api()}
    assert facts.report(body) == Report("node0", 2, ("no permission",), switched=1, injections=1)


@pytest.mark.parametrize(
    ("levels", "verdict", "missing"),
    [
        ({}, OK, False),
        ({NAMESPACE: None}, OK, False),
        ({NAMESPACE: "privileged"}, OK, False),
        ({NAMESPACE: "baseline"}, LACKS, True),
        ({NAMESPACE: "restricted"}, LACKS, True),
    ],
)
def test_our_namespace_has_to_let_agents_in(levels: dict[str, str | None], verdict: Verdict, missing: bool) -> None:
    of = cluster(OURS)
    labels = {name: {"pod-security.kubernetes.io/enforce": level} if level else {} for name, level in levels.items()}
    found = only(replace(of, namespaces=labels), "Pod Security")
    assert (found.verdict, found.is_missing) == (verdict, missing)
    if found.verdict is LACKS:
        assert found.command.endswith("joulepath-system pod-security.kubernetes.io/enforce=privileged")


def test_trainings_namespaces_have_to_ask_and_to_allow_hostpath_where_volumes_inject() -> None:
    check, asks = "namespaces of trainings", {"joulepath.dev/injection": "volumes"}
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}

    def told(**namespaces: dict[str, str]) -> Finding:
        found = only(replace(cluster(OURS), namespaces={**namespaces, NAMESPACE: {}}), check, Injection.VOLUMES)
        assert not found.is_missing
        return found

    nobody = told(ml=restricted, other={"joulepath.dev/injection": "nri"})
    assert (nobody.verdict, nobody.command) == (
        LACKS,
        "kubectl label namespace NAMESPACE joulepath.dev/injection=volumes",
    )
    assert "nothing is injected in ml:" in told(ml=asks | restricted, other=asks).seen
    asked = told(ml=asks, other=restricted)
    assert (asked.verdict, asked.seen) == (OK, "The webhook is asked about pods of ml.")
    assert check not in {one.check for one in judge(cluster(OURS)).findings}


@pytest.mark.parametrize(
    ("version", "verdict"), [("v1.29.12-gke.100", LACKS), ("v1.30.4-eks-a737599", OK), ("x", UNKNOWN)]
)
def test_kubernetes_is_1_30_or_newer(version: str, verdict: Verdict) -> None:
    assert only(replace(cluster(OURS), version=version), "Kubernetes").verdict is verdict


def test_kinds_of_jobs_are_told_and_prometheus_is_not_needed() -> None:
    newer = {
        "kubeflow.org": frozenset[str](),
        "trainer.kubeflow.org": frozenset({"v2/trainjobs"}),
        "jobset.x-k8s.io": frozenset({"v1alpha2/jobsets"}),
        "batch": frozenset({"v1/jobs", "v1/jobs/status"}),
    }
    found = only(cluster(OURS, **newer), "job kinds")
    assert found.verdict is OK
    told = "JobSet (jobset.x-k8s.io/v1alpha2), Job (batch/v1). TrainJob is there, but not as"
    assert found.seen == f"{told} trainer.kubeflow.org/v1alpha1."
    assert only(cluster(OURS), "job kinds").seen == "PyTorchJob (kubeflow.org/v1)."
    assert not only(cluster(OURS), "Prometheus").is_missing
    operated = cluster(OURS, **{"monitoring.coreos.com": frozenset({"v1/podmonitors"})})
    assert only(operated, "Prometheus").verdict is OK


def test_a_release_that_is_there_is_looked_at() -> None:
    operator = Pod("o", "operator", "node0", "Running", ready=True, containers=("operator",), host_pid=False)
    whole = replace(cluster(OURS, **{"joulepath.dev": KINDS}), pods=(operator, agent("node0", "injector")))
    told = judge(whole)
    assert told.works
    assert told.injection is Injection.NRI
    assert {one.check for one in told.findings} >= {"agents", "operator", "Joulepath's kinds"}
    waiting = replace(whole, pods=(replace(operator, ready=False), agent("node0", ready=False)))
    assert [one.check for one in judge(waiting).findings if one.is_missing] == ["agents", "operator"]
    assert judge(waiting).injection is Injection.VOLUMES, "agents without an injector"
    older = replace(whole, kinds={**whole.kinds, "joulepath.dev": KINDS - {"v1alpha1/nodereports"}})
    assert "Not served: v1alpha1/nodereports" in only(older, "Joulepath's kinds").seen
    more = replace(whole, nodes=(*map(facts.node, (OURS, EKS)),))
    assert "Ready on 1 of 2 GPU nodes, not on ip-10" in only(more, "agents").seen
    assert not only(more, "agents").is_missing


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    """An API server that the current kubeconfig names."""
    with api_double() as running:
        monkeypatch.setattr(LOCATION, str(kubeconfig(tmp_path, running.address)))
        yield running


def test_the_command_tells_all_in_80_columns_and_exits_with_0(run: Run, double: ApiDouble) -> None:
    double.nodes = [{**GKE, "metadata": {**GKE["metadata"], "labels": OURS["metadata"]["labels"]}}, OPENSHIFT]
    ran = run("preflight")
    assert (ran.status, ran.err) == (0, "")
    assert "ok       Kubernetes: v1.33.1." in ran.out
    assert "lacks    runtime (no obstacle): containerd 1.7.24" in ran.out
    assert ran.out.endswith("missing, with injection: volumes.\n")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "\x1b" not in ran.out
    assert {method for method, _ in double.asked} == {"GET"}


def test_what_is_needed_and_missing_is_exit_1(run: Run, double: ApiDouble) -> None:
    double.kinds = {}
    ran = run("preflight", "-o", "json")
    document = json.loads(ran.out)
    assert (ran.status, document["works"], document["injection"]) == (1, False, "nri")
    (found,) = [one for one in document["findings"] if one["check"] == "job kinds"]
    assert found == {
        "check": "job kinds",
        "verdict": "lacks",
        "seen": "There is no kind of job that can be planned for.",
        "remedy": found["remedy"],
        "command": "",
        "needed": True,
    }
    assert "1 thing missing that it needs" in run("preflight").out


def test_rights_that_are_missing_are_unknown_by_their_verb(run: Run, double: ApiDouble) -> None:
    double.kinds |= {"joulepath.dev": {"v1alpha1": ["nodereports"]}, "resource.k8s.io": {"v1": ["resourceslices"]}}
    double.forbidden = {
        "/version",
        "/api/v1/namespaces",
        "/api/v1/namespaces/joulepath-system/pods",
        "/apis/joulepath.dev/v1alpha1/nodereports",
        "/apis/resource.k8s.io/v1/resourceslices",
        "/apis/monitoring.coreos.com",
    }
    ran = run("preflight")
    assert (ran.status, ran.err) == (0, "")
    for right in (
        "get /version",
        "list namespaces",
        "list pods in namespace joulepath-system",
        "list nodereports.joulepath.dev",
        "get /apis/monitoring.coreos.com",
    ):
        assert f"you may not {right}" in " ".join(ran.out.split())
    double.forbidden = {"/api/v1/nodes"}
    ran = run("preflight")
    assert ran.status == 0, "nothing is seen to be missing"
    assert "unknown  GPU nodes: It can't be told: you may not list nodes." in ran.out


def test_every_page_of_nodes_is_read(run: Run, double: ApiDouble) -> None:
    double.nodes = [node(f"n{one}", "containerd://2.1.4") for one in range(601)]
    assert "4808 whole GPUs on 601 nodes: n0, n1, n10 and 598 more." in " ".join(run("preflight").out.split())
    assert double.asked.count(("GET", "/api/v1/nodes")) == 3


def test_who_gets_no_answer_is_told_in_a_sentence(
    run: Run, double: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.status = 401
    assert (run("preflight").status, "log in again" in run("preflight").err) == (2, True)
    double.status = 500
    assert "the API server answers 500" in run("preflight").out
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    ran = run("preflight")
    assert (ran.status, ran.out) == (2, "")
    assert "see kubectl cluster-info" in ran.err
    monkeypatch.setattr(LOCATION, str(tmp_path / "none"))
    ran = run("preflight")
    assert (ran.status, "set KUBECONFIG" in ran.err, ran.err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("options", [("-o", "xml"), ("--injection", "webhook"), ("more",)])
def test_a_wrong_option_is_exit_2(run: Run, options: tuple[str, ...]) -> None:
    assert run("preflight", *options).status == 2


def test_commands_stay_whole_for_a_shell() -> None:
    of = replace(cluster(OURS), namespaces={NAMESPACE: {"pod-security.kubernetes.io/enforce": "restricted"}})
    _, _, after = as_text(judge(of)).partition("Let agents in:\n")
    command = after.partition("\nok ")[0]
    seen = subprocess.run(["bash", "-c", f'kubectl() {{ echo "$@"; }}; {command}'], capture_output=True, text=True)
    assert seen.stdout == "label namespace joulepath-system pod-security.kubernetes.io/enforce=privileged\n"


def test_it_runs_without_the_tables_that_the_operators_image_lacks() -> None:
    program = "import sys; sys.modules['rich'] = None; from joulepath_cli.__main__ import main; main({})"
    seen = [
        subprocess.run([sys.executable, "-c", program.format(repr(words))], capture_output=True, text=True)
        for words in (["preflight", "--help"], ["plan", "--help"])
    ]
    assert "--injection" in seen[0].stdout
    assert "the package rich" in seen[1].stderr
