"""Where the chart's pods run and what each of their containers may do."""

from __future__ import annotations

import json

import pytest

from real_cluster import Cluster
from tests.chart.rendering import Object, only, render, workloads

CAPABILITIES = {"reset": ["SYS_ADMIN"], "warden": ["SYS_ADMIN"], "clocks": ["SYS_ADMIN", "SYS_NICE"]}


@pytest.mark.cluster
def test_agents_run_on_nodes_with_gpus_unless_told_otherwise(cluster: Cluster) -> None:
    def chosen(*arguments: str) -> Object:
        return dict(workloads(render(cluster, *arguments))["agent"].get("nodeSelector") or {})

    label = {"nvidia.com/gpu.present": "true"}
    assert chosen() == label
    assert chosen("--set-json", "agent.nodeSelector=null") == {}
    assert chosen("--set-json", 'agent.nodeSelector={"a":"b"}') == {**label, "a": "b"}
    assert chosen("--set-json", 'agent.nodeSelector={"nvidia.com/gpu.present":null,"a":"b"}') == {"a": "b"}


@pytest.mark.cluster
def test_a_broken_node_does_not_keep_the_other_agents_from_an_upgrade(objects: list[Object]) -> None:
    strategy = only(objects, "DaemonSet", "joulepath-agent")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"].endswith("%")


@pytest.mark.cluster
def test_agents_of_old_kernels_alone_see_the_hosts_processes(cluster: Cluster) -> None:
    pods = workloads(render(cluster, "--set", "agent.hostPID=true"))
    assert {part for part, pod in pods.items() if pod.get("hostPID")} == {"agent"}


@pytest.mark.cluster
def test_no_pod_has_more_than_it_needs(objects: list[Object]) -> None:
    for part, pod in workloads(objects).items():
        assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert "privileged" not in context
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert (context["capabilities"].get("add") or []) == CAPABILITIES.get(container["name"], [])
            assert container["resources"]["limits"]["memory"]
        host_paths = {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
        if part == "agent":
            mounts = {
                (container["name"], one["mountPath"]): "ro" if one.get("readOnly") else "rw"
                for container in (*pod["initContainers"], *pod["containers"])
                for one in container.get("volumeMounts", ())
            }
            assert mounts == {
                ("trainer-files", "/var/lib/joulepath/injector"): "rw",
                ("trainer-files", "/var/lib/joulepath/trainer"): "rw",
                ("reset", "/var/lib/joulepath"): "rw",
                ("warden", "/var/lib/joulepath"): "rw",
                ("clocks", "/var/lib/joulepath"): "rw",
                ("clocks", "/run/joulepath"): "rw",
                ("clocks", "/host/proc"): "ro",
                ("agent", "/var/lib/joulepath"): "ro",
                ("agent", "/var/lib/kubelet/pod-resources"): "ro",
                ("agent", "/var/run/secrets/kubernetes.io/serviceaccount"): "ro",
                ("agent", "/tmp"): "rw",
            }
            assert host_paths == {
                "/run/joulepath",
                "/var/lib/joulepath",
                "/var/lib/joulepath/injector",
                "/var/lib/joulepath/trainer",
                "/proc",
                "/var/lib/kubelet/pod-resources",
            }
        else:
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert host_paths == set()


@pytest.mark.cluster
def test_what_sets_clocks_has_neither_token_nor_port_and_the_reset_comes_first(objects: list[Object]) -> None:
    pod = workloads(objects)["agent"]
    agent, clocks, warden = pod["containers"]
    first = pod["initContainers"][0]
    commands = [(one["name"], one.get("command")) for one in (first, agent, clocks, warden)]
    assert commands == [
        ("reset", ["joulepath-warden", "--once"]),
        ("agent", None),
        ("clocks", ["joulepath-clocks"]),
        ("warden", ["joulepath-warden"]),
    ]
    for one in (clocks, warden, first):
        assert not {"token", "pod-resources"} & {mount["name"] for mount in one["volumeMounts"]}
        assert "ports" not in one
        assert (one["image"], one["env"]) == (agent["image"], agent["env"])
    assert pod["automountServiceAccountToken"] is False
    (token,) = (one["projected"]["sources"][0] for one in pod["volumes"] if one["name"] == "token")
    assert token["serviceAccountToken"]["expirationSeconds"] < 3607, "the API server prolongs those of 3607 s to a year"
    assert pod["terminationGracePeriodSeconds"] == 30


@pytest.mark.cluster
def test_nothing_gives_the_container_with_the_token_a_capability_and_real_time_can_be_taken_off(
    cluster: Cluster,
) -> None:
    values = "agent.securityContext.capabilities.add={SYS_ADMIN,SYS_RAWIO},agent.securityContext.privileged=true"
    agent, *others = workloads(render(cluster, "--set", values))["agent"]["containers"]
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": []}
    assert "privileged" not in agent["securityContext"]
    assert all(one["securityContext"]["privileged"] for one in others)
    _, clocks, _ = workloads(render(cluster, "--set", "agent.realtime=false"))["agent"]["containers"]
    assert clocks["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN"]


@pytest.mark.cluster
def test_what_a_site_adds_for_nvml_all_have_that_use_it(cluster: Cluster) -> None:
    mount = '[{"name":"tmp","mountPath":"/x"}]'
    arguments = (
        "--set-json",
        f"agent.extraVolumeMounts={mount}",
        "--set",
        "agent.securityContext.seLinuxOptions.type=a",
    )
    pod = workloads(render(cluster, *arguments))["agent"]
    for one in (*pod["containers"], pod["initContainers"][0]):
        assert json.loads(mount)[0] in one["volumeMounts"]
        assert one["securityContext"]["seLinuxOptions"] == {"type": "a"}


@pytest.mark.cluster
def test_the_injector_has_the_runtimes_socket_and_nothing_else(cluster: Cluster, objects: list[Object]) -> None:
    pod = workloads(render(cluster, "--set", "injection=nri"))["agent"]
    (injector,) = (one for one in pod["containers"] if one["name"] == "injector")
    assert injector["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"add": [], "drop": ["ALL"]},
    }
    paths = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert {
        one["mountPath"]: ("ro" if one.get("readOnly") else "rw", one.get("mountPropagation"))
        for one in injector["volumeMounts"]
    } == {
        "/var/run/nri": ("rw", None),
        "/run/joulepath": ("rw", "HostToContainer"),
        "/var/lib/joulepath": ("ro", "HostToContainer"),
        "/var/lib/joulepath/injector": ("rw", None),
        "/var/lib/joulepath/trainer": ("rw", "HostToContainer"),
    }
    # What it tells the runtime to mount are paths of the node: they are the same in its container.
    assert all(paths[one["name"]] == one["mountPath"] for one in injector["volumeMounts"])
    others = [one for one in pod["containers"] if one["name"] != "injector"]
    assert not [one["name"] for one in others for mount in one["volumeMounts"] if mount["name"] == "nri"]
    assert "injector" not in {one["name"] for one in workloads(objects)["agent"]["containers"]}


@pytest.mark.cluster
def test_a_doctor_comes_only_when_asked_for_with_the_wardens_rights_and_no_token(cluster: Cluster) -> None:
    assert not [one for one in render(cluster) if one["kind"] == "Job"]
    (job,) = [one for one in render(cluster, "--set", "doctor.enabled=true") if one["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    agent = workloads(render(cluster))["agent"]
    (same,) = [one for one in agent["containers"] if one["name"] == "warden"]
    for name in ("image", "securityContext"):
        assert container[name] == same[name]
    assert container["command"] == ["joulepath-agent", "doctor"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["nodeSelector"] == agent["nodeSelector"]
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)


@pytest.mark.cluster
def test_a_doctor_goes_to_where_torch_is(cluster: Cluster) -> None:
    values = "doctor.enabled=true,doctor.image=torch:1,doctor.nodeSelector.a=b"
    (job,) = [one for one in render(cluster, "--set", values) if one["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    (container,), (copies,) = pod["containers"], pod["initContainers"]
    assert (container["image"], copies["image"]) == ("torch:1", "joulepath.local/agent:0.1.0")
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment["PYTHONPATH"] == "/doctor"
    assert pod["nodeSelector"] == {"a": "b", "nvidia.com/gpu.present": "true"}
