"""What the chart renders: what each part may do, what happens when a part fails, and what a wrong value says."""

from __future__ import annotations

import json
import shutil
import ssl
import time
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import yaml

from real_cluster import Cluster, CommandError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/joulepath"
NAMESPACE = "joulepath-system"
Object = dict[str, Any]
CAPABILITIES = {"reset": ["SYS_ADMIN"], "warden": ["SYS_ADMIN"], "clocks": ["SYS_ADMIN", "SYS_NICE"]}


def render(cluster: Cluster, *arguments: str, release: str = "joulepath") -> list[Object]:
    """The objects that an install would make; with the webhook, unless it is said otherwise."""
    options = ("--namespace", NAMESPACE, "--set", "injection=volumes")
    text = cluster.helm("template", release, CHART, *options, *arguments)
    return [one for one in yaml.safe_load_all(text) if one]


@pytest.fixture(scope="module")
def objects(cluster: Cluster) -> list[Object]:
    return render(cluster)


def only(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workloads(objects: list[Object]) -> dict[str, Object]:
    """The pod specs of Deployments and DaemonSets, by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in {"Deployment", "DaemonSet"}
    }


def grants(objects: list[Object], part: str) -> set[tuple[str, str]]:
    """(verb, group/resource) that a part's roles grant."""
    return {
        (verb, f"{group}/{resource}")
        for one in objects
        if one["kind"] in {"Role", "ClusterRole"} and one["metadata"]["name"] == f"joulepath-{part}"
        for rule in one["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_schema_allows_what_the_values_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_schema_and_values_know_the_same_names() -> None:
    def names(schema: Object) -> Object:
        return {key: names(one) for key, one in schema.get("properties", {}).items()}

    def known(values: Object, schema: Object) -> Iterator[str]:
        for key in schema:
            if key not in values:
                yield key
            elif schema[key] and values[key]:
                yield from known(values[key], schema[key])

    schema = names(json.loads((CHART / "values.schema.json").read_text()))
    optional = {"global", "claims"}
    assert set(known(yaml.safe_load((CHART / "values.yaml").read_text()), schema)) - optional <= {"requests"}


def test_version_is_that_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == version


@pytest.mark.cluster
def test_lint_finds_nothing(cluster: Cluster) -> None:
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", CHART)


@pytest.mark.cluster
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--set", "agent.runtimeClassName=nvidia,webhook.replicas=1,crds.install=false"),
        ("--set", r"agent.siteClocks=210\,1200,webhook.gpuResource=nvidia.com/gpu\,x.y/z,logLevel=debug"),
        (
            "--set",
            "agent.silenceLimitSeconds=20,agent.maxSlowdownPercent=5,agent.planTimeToLiveSeconds=86400,agent.hostPID=true",
        ),
        ("--set", "agent.onForeignClock=yield"),
        ("--set", "doctor.enabled=true"),
        ("--set", "doctor.enabled=true,doctor.image=torch:1,doctor.nodes=3,agent.nodeSelector=null"),
        ("--set", "networkPolicy.enabled=false"),
        ("--set", "metrics.secure=true"),
        ("--set", "injection=nri"),
        ("--set-json", 'networkPolicy={"metricsFromNamespaces":{"matchLabels":{"a":"b"}},"apiServerPorts":[8443]}'),
        ("--set", "dashboards.enabled=true,metrics.annotations=false"),
        ("--set-json", 'image.pullSecrets=["key"]', "--set-json", 'agent.nodeSelector={"a":"b"}'),
        ("--set-json", 'agent.extraVolumes=[{"name":"x","emptyDir":{}}]'),
        ("--set-json", 'agent.extraVolumeMounts=[{"name":"tmp","mountPath":"/x"}]'),
        ("--set-json", 'agent.extraEnv=[{"name":"A","value":"b"}]'),
    ],
    ids=str,
)
def test_api_server_accepts_every_object(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    namespaced = []
    for one in render(cluster, *arguments, release="dry"):
        # The release's namespace need not exist: only its name differs in a dry run.
        if one["metadata"].get("namespace") == NAMESPACE:
            one["metadata"]["namespace"] = "default"
        if one["kind"] == "Pod":  # its account is made in the dry run only
            one["spec"]["serviceAccountName"] = "default"
        namespaced.append(one)
    text = yaml.safe_dump_all(namespaced)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.cluster
def test_install_puts_the_definitions_first_and_keeps_them(objects: list[Object]) -> None:
    definitions = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
    assert {one["spec"]["names"]["kind"] for one in definitions} == {
        "EnergyPlan",
        "EnergyProfile",
        "JobPlan",
        "NodeReport",
    }
    assert all(one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for one in definitions)


@pytest.mark.cluster
def test_definitions_can_be_left_to_somebody_else(cluster: Cluster) -> None:
    assert "CustomResourceDefinition" not in {one["kind"] for one in render(cluster, "--set", "crds.install=false")}


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
def test_accounts_write_what_is_ours_and_nothing_else(objects: list[Object]) -> None:
    for one in objects:
        for rule in one.get("rules", ()) if one["kind"] in {"Role", "ClusterRole"} else ():
            assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
    reading = {"get", "list", "watch"}
    writes = {
        part: {(verb, what) for verb, what in grants(objects, part) if verb not in reading}
        for part in ("operator", "agent", "webhook")
    }
    assert {what for _, what in writes["operator"]} == {
        "joulepath.dev/energyplans/status",
        "joulepath.dev/energyprofiles",
        "joulepath.dev/jobplans",
        "/events",
        "/configmaps",
    }
    assert {what for _, what in writes["agent"]} == {
        "joulepath.dev/nodereports",
        "joulepath.dev/nodereports/status",
        "coordination.k8s.io/leases",
    }
    assert writes["webhook"] == set()
    assert {verb for verb, _ in writes["agent"]} == {"create", "patch"}
    assert not any("secrets" in what for part in writes for _, what in grants(objects, part))


@pytest.mark.cluster
@pytest.mark.parametrize("injection", ["volumes", "nri"])
def test_helm_test_asks_the_cluster_by_an_account_that_lists_and_is_deleted(cluster: Cluster, injection: str) -> None:
    made = [
        one
        for one in render(cluster, "--set", f"injection={injection}", "--set-json", 'image.pullSecrets=["key"]')
        if one["metadata"]["name"] == "joulepath-preflight"
    ]
    hooks = {one["kind"]: one["metadata"]["annotations"] for one in made}
    assert set(hooks) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Pod"}
    assert {one["helm.sh/hook"] for one in hooks.values()} == {"test"}
    assert {kind for kind, one in hooks.items() if "hook-succeeded" in one["helm.sh/hook-delete-policy"]} == {
        *hooks
    } - {"Pod"}, "its log is read when it is over"
    assert grants(made, "preflight") == {
        ("list", "/nodes"),
        ("list", "/namespaces"),
        ("list", "resource.k8s.io/resourceslices"),
        ("list", "joulepath.dev/nodereports"),
        ("list", "/pods"),
    }
    assert [one["kind"] for one in made if {"pods"} in [set(rule["resources"]) for rule in one.get("rules", ())]] == [
        "Role"
    ]
    pod = only(made, "Pod", "joulepath-preflight")["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["--namespace", NAMESPACE, "--injection", injection]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["imagePullSecrets"] == [{"name": "key"}]


@pytest.mark.cluster
def test_where_the_node_injects_the_agent_reads_jobs_and_no_pods(cluster: Cluster, objects: list[Object]) -> None:
    before, after = (grants(made, "agent") for made in (objects, render(cluster, "--set", "injection=nri")))
    assert before - after == {("get", "/pods")}
    assert after - before == {("get", "kubeflow.org/pytorchjobs")}


@pytest.mark.cluster
def test_where_injection_is_stopped_the_operator_writes_and_the_webhook_reads_and_nobody_else(
    cluster: Cluster, objects: list[Object]
) -> None:
    (written,) = (one for one in objects if one["metadata"]["name"] == "joulepath-injection")
    assert written["kind"] == "ConfigMap"
    assert "data" not in written, "an upgrade leaves what is there"
    verbs = {
        one["metadata"]["name"]: rule["verbs"]
        for one in objects
        if one["kind"] in {"Role", "ClusterRole"}
        for rule in one["rules"]
        if "configmaps" in rule["resources"] and rule["resourceNames"] == ["joulepath-injection"]
    }
    assert verbs == {"joulepath-operator": ["get", "patch"], "joulepath-webhook": ["get"]}
    for part in ("operator", "webhook"):
        environment = {one["name"]: one.get("value") for one in workloads(objects)[part]["containers"][0]["env"]}
        assert environment["JOULEPATH_STOPS"] == f"{NAMESPACE}/joulepath-injection"
    by_node = render(cluster, "--set", "injection=nri")
    assert not [one for one in by_node if one["metadata"]["name"] == "joulepath-injection"]
    assert not any("configmaps" in what for _, what in grants(by_node, "operator"))


@pytest.mark.cluster
def test_where_the_node_injects_there_is_no_webhook_and_no_image_of_the_trainer(cluster: Cluster) -> None:
    made = [one for one in yaml.safe_load_all(cluster.helm("template", "joulepath", CHART)) if one]  # as by default
    assert not [one["kind"] for one in made if "webhook" in one["metadata"]["name"] or "Webhook" in one["kind"]]
    assert [one["name"] for one in workloads(made)["agent"]["initContainers"]] == ["reset"]
    environment = {one["name"]: one.get("value") for one in workloads(made)["operator"]["containers"][0]["env"]}
    assert environment["JOULEPATH_INJECTION"] == "nri"


@pytest.mark.cluster
def test_values_of_a_chart_before_injection_by_the_node_mean_volumes(cluster: Cluster) -> None:
    """`helm upgrade --reuse-values`."""
    older = ("--set", "injection=null,agent.injectorResources=null")
    made = [one for one in yaml.safe_load_all(cluster.helm("template", "joulepath", CHART, *older)) if one]
    assert only(made, "MutatingWebhookConfiguration", "joulepath-webhook")
    assert "injector" not in {one["name"] for one in workloads(made)["agent"]["containers"]}
    environment = {one["name"]: one.get("value") for one in workloads(made)["operator"]["containers"][0]["env"]}
    assert environment["JOULEPATH_INJECTION"] == "volumes"
    (asks,) = only(made, "Pod", "joulepath-preflight")["spec"]["containers"]
    assert asks["args"][-2:] == ["--injection", "volumes"]
    switched = render(cluster, *older, "--set", "injection=nri")
    (injector,) = (one for one in workloads(switched)["agent"]["containers"] if one["name"] == "injector")
    assert injector["resources"]["limits"]["memory"]


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
    assert {one["mountPath"] for one in injector["volumeMounts"]} == {
        "/var/run/nri",
        "/run/joulepath",
        "/var/lib/joulepath/injector",
        "/var/lib/joulepath/trainer",
    }
    # What it tells the runtime to mount are paths of the node: they are the same in its container.
    assert all(paths[one["name"]] == one["mountPath"] for one in injector["volumeMounts"])
    others = [one for one in pod["containers"] if one["name"] != "injector"]
    assert not [one["name"] for one in others for mount in one["volumeMounts"] if mount["name"] == "nri"]
    assert "injector" not in {one["name"] for one in workloads(objects)["agent"]["containers"]}


@pytest.mark.cluster
def test_the_operator_is_told_by_which_way_pods_get_the_trainer(cluster: Cluster) -> None:
    for settings, told in (
        ("webhook.gpuResource=site.example/gpu", ("volumes", "site.example/gpu")),
        ("injection=nri", ("nri", "nvidia.com/gpu")),
    ):
        (container,) = workloads(render(cluster, "--set", settings))["operator"]["containers"]
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert (environment["JOULEPATH_INJECTION"], environment["JOULEPATH_GPU_RESOURCE"]) == told


@pytest.mark.cluster
def test_webhook_can_neither_block_nor_slow_other_pods(objects: list[Object]) -> None:
    (hook,) = only(objects, "MutatingWebhookConfiguration", "joulepath-webhook")["webhooks"]
    assert hook["failurePolicy"] == "Ignore"
    assert hook["timeoutSeconds"] == 1
    assert hook["sideEffects"] == "None"
    assert [(rule["operations"], rule["resources"]) for rule in hook["rules"]] == [(["CREATE"], ["pods"])]
    assert hook["objectSelector"]["matchExpressions"] == [
        {"key": "training.kubeflow.org/job-name", "operator": "Exists"}
    ]
    assert hook["namespaceSelector"] == {"matchLabels": {"joulepath.dev/injection": "volumes"}}


def policies(objects: list[Object]) -> dict[str, Object]:
    """Specs of the NetworkPolicies, by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy"
    }


@pytest.mark.cluster
def test_pods_are_asked_at_one_port_and_ask_the_api_server_and_dns_only(objects: list[Object]) -> None:
    found = policies(objects)
    assert set(found) == set(workloads(objects))
    for part, spec in found.items():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        (rule,) = spec["ingress"]
        (served,) = (
            port["containerPort"]
            for container in workloads(objects)[part]["containers"]
            for port in container.get("ports", ())
            if port["name"] != "health"
        )
        assert [port["port"] for port in rule["ports"]] == [served]
        # The API server, who asks the webhook, is no pod.
        assert rule.get("from") == (None if part == "webhook" else [{"namespaceSelector": {}}])
        ports = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
        assert ports == {("TCP", 443), ("TCP", 6443), ("UDP", 53), ("TCP", 53)}


@pytest.mark.cluster
def test_who_may_read_metrics_and_where_the_api_server_is_can_be_said(cluster: Cluster) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    given = {"metricsFromNamespaces": selector, "apiServerPorts": [443, 16443]}
    found = policies(render(cluster, "--set-json", f"networkPolicy={json.dumps(given)}"))
    for part in ("operator", "agent"):
        assert found[part]["ingress"][0]["from"] == [{"namespaceSelector": selector}]
        assert [port["port"] for port in found[part]["egress"][0]["ports"]] == [443, 16443]
    asks = [{"ipBlock": {"cidr": "10.0.0.0/28"}}]
    found = policies(render(cluster, "--set-json", f"networkPolicy.webhookFrom={json.dumps(asks)}"))
    assert found["webhook"]["ingress"][0]["from"] == asks
    assert policies(render(cluster, "--set", "networkPolicy.enabled=false")) == {}
    assert policies(render(cluster, "--set-json", "networkPolicy=null")) == policies(render(cluster))


@pytest.mark.cluster
def test_selectors_of_the_parts_select_their_pods_and_no_others(objects: list[Object]) -> None:
    pods = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] in {"Deployment", "DaemonSet"}
    }
    for one in objects:
        selector = one.get("spec", {}).get("selector") or one.get("spec", {}).get("podSelector")
        if one["kind"] not in {"Deployment", "DaemonSet", "Service", "PodDisruptionBudget", "NetworkPolicy"}:
            continue
        wanted = selector.get("matchLabels", selector)
        assert [part for part, labels in pods.items() if wanted.items() <= labels.items()] == [
            one["metadata"]["labels"]["app.kubernetes.io/component"]
        ]


@pytest.mark.cluster
def test_two_releases_share_no_name(cluster: Cluster, objects: list[Object]) -> None:
    def names(rendered: list[Object]) -> set[tuple[str, str]]:
        return {(one["kind"], one["metadata"]["name"]) for one in rendered}

    shared = names(objects) & names(render(cluster, release="other"))
    assert {kind for kind, _ in shared} == {"CustomResourceDefinition"}


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "agent.runtimeClass=nvidia"), "at '/agent': additional properties 'runtimeClass' not allowed"),
        (("--set", "trainer.image=x"), "additional properties 'trainer' not allowed"),
        (("--set", "webhook.replicas=0"), "at '/webhook/replicas': minimum: got 0, want 1"),
        (("--set", "image.pullPolicy=Sometimes"), "at '/image/pullPolicy': value must be one of 'Always'"),
        (("--set", "agent.siteClocks=1200"), "at '/agent/siteClocks'"),
        (("--set", "agent.silenceLimitSeconds=86400"), "at '/agent/silenceLimitSeconds'"),
        (
            ("--set", "agent.onForeignClock=fight"),
            "at '/agent/onForeignClock': value must be one of 'reassert', 'yield'",
        ),
        (("--set", "agent.planTimeToLiveSeconds=30"), "at '/agent/planTimeToLiveSeconds'"),
        (("--set", "agent.maxSlowdownPercent=51"), "at '/agent/maxSlowdownPercent': maximum: got 51, want 50"),
        (("--set", "agent.maxUnavailable=0"), "at '/agent/maxUnavailable': minimum: got 0, want 1"),
        (("--set-string", "agent.maxUnavailable=half"), "at '/agent/maxUnavailable'"),
        (("--set", "image.registry="), "at '/image/registry'"),
        (("--set", "metrics.podMonitor.interval=often"), "at '/metrics/podMonitor/interval'"),
        (("--set", "webhook.certificate.existingSecret=own"), "webhook.certificate.caBundle is empty"),
        (("--set", "webhook.certificate.caBundle=MII"), "at '/webhook/certificate/caBundle'"),
        (
            ("--set", "webhook.certificate.existingSecret=own,webhook.certificate.certManager.issuerRef.name=site"),
            "existingSecret and webhook.certificate.certManager.issuerRef are both set",
        ),
        (("--set", "networkPolicy.apiServerPorts={0}"), "at '/networkPolicy/apiServerPorts/0': minimum: got 0, want 1"),
        (("--set", "networkPolicy.metricsFromNamespaces.name=a"), "at '/networkPolicy/metricsFromNamespaces'"),
        (
            ("--set", "metrics.secure=true,metrics.podMonitor.enabled=true"),
            "metrics.podMonitor.tokenSecret.name is empty",
        ),
        (("--set", "metrics.certificate.existingSecret=A"), "at '/metrics/certificate/existingSecret'"),
        (("--set", "dashboards.enabled=maybe"), "at '/dashboards/enabled': got string, want boolean"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1],
)
def test_a_wrong_value_is_named(cluster: Cluster, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(CommandError) as refused:
        render(cluster, *arguments)
    assert sentence in str(refused.value)


@pytest.mark.cluster
def test_images_follow_registry_and_tag_unless_given_whole(cluster: Cluster) -> None:
    pods = workloads(render(cluster, "--set", "image.registry=r.example/jp,image.tag=v7,agent.image=other/agent:1"))
    images = {part: pod["containers"][0]["image"] for part, pod in pods.items()}
    assert images == {
        "operator": "r.example/jp/operator:v7",
        "webhook": "r.example/jp/operator:v7",
        "agent": "other/agent:1",
    }
    every = {one["image"] for pod in pods.values() for one in (*pod["containers"], *pod.get("initContainers", ()))}
    assert every == {*images.values()}


@pytest.mark.cluster
def test_dashboards_are_carried_whole(cluster: Cluster) -> None:
    config = only(render(cluster, "--set", "dashboards.enabled=true"), "ConfigMap", "joulepath-dashboards")
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in (config.get("data") or {}).items()} == files
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.cluster
def test_pod_monitor_is_there_on_demand(cluster: Cluster) -> None:
    arguments = ("--set", "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prometheus")
    monitor = only(render(cluster, *arguments), "PodMonitor", "joulepath")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def metrics_secret(objects: list[Object]) -> dict[str, Any]:
    """By component, the Secret that is mounted where the metrics' certificate is looked for."""
    found = {}
    for part in ("operator", "agent"):
        pod = workloads(objects)[part]
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
        volumes = {one["name"]: one for one in pod["volumes"]}
        folder = environment.get("JOULEPATH_METRICS_TLS")
        found[part] = volumes[mounts[folder]]["secret"]["secretName"] if folder else None
    return found


@pytest.mark.cluster
def test_metrics_are_plain_and_nobody_may_ask_for_reviews_unless_they_are_secured(objects: list[Object]) -> None:
    assert metrics_secret(objects) == {"operator": None, "agent": None}
    assert not any("review" in what for part in ("operator", "agent") for _, what in grants(objects, part))
    assert not any(rule.get("nonResourceURLs") for one in objects for rule in one.get("rules") or ())


@pytest.mark.cluster
def test_secured_metrics_have_a_certificate_the_right_to_ask_and_a_role_for_who_scrapes(cluster: Cluster) -> None:
    given = "metrics.secure=true,metrics.podMonitor.enabled=true,metrics.podMonitor.tokenSecret.name=scraper"
    objects = render(cluster, "--set", given)
    secret = only(objects, "Secret", "joulepath-metrics")
    assert metrics_secret(objects) == {"operator": "joulepath-metrics", "agent": "joulepath-metrics"}
    ssl.create_default_context(cadata=b64decode(secret["data"]["ca.crt"]).decode())
    for part in ("operator", "agent"):
        asked = {what for verb, what in grants(objects, part) if "review" in what}
        assert asked == {"authentication.k8s.io/tokenreviews", "authorization.k8s.io/subjectaccessreviews"}
    assert not any("review" in what for _, what in grants(objects, "webhook"))
    reader = only(objects, "ClusterRole", "joulepath-metrics-reader")
    assert reader["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    (endpoint,) = only(objects, "PodMonitor", "joulepath")["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == f"joulepath-metrics.{NAMESPACE}.svc"
    assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": "joulepath-metrics", "key": "ca.crt"}}
    assert endpoint["authorization"] == {"credentials": {"name": "scraper", "key": "token"}}
    for kind, part in (("Deployment", "operator"), ("DaemonSet", "agent")):
        template = only(objects, kind, f"joulepath-{part}")["spec"]["template"]
        assert template["metadata"]["annotations"]["prometheus.io/scheme"] == "https"


@pytest.mark.cluster
def test_a_certificate_of_the_site_s_own_secures_the_metrics(cluster: Cluster) -> None:
    objects = render(cluster, "--set", "metrics.secure=true,metrics.certificate.existingSecret=own")
    assert metrics_secret(objects) == {"operator": "own", "agent": "own"}
    assert not [one for one in objects if one["kind"] == "Secret" and one["metadata"]["name"] == "joulepath-metrics"]


@pytest.mark.cluster
def test_notes_say_what_to_do_next(cluster: Cluster) -> None:
    def notes(namespace: str, injection: str = "volumes") -> str:
        options = ("--dry-run=client", "--set", f"injection={injection}")
        return cluster.helm("install", "joulepath", CHART, "--namespace", namespace, *options)

    assert "kubectl get energyplan NAME -w" in notes(NAMESPACE)
    assert "--take-ownership" in notes(NAMESPACE)
    assert "WARNING" not in notes(NAMESPACE)
    assert "kubectl label namespace NAMESPACE joulepath.dev/injection=volumes" in notes(NAMESPACE)
    assert "kubectl label namespace NAMESPACE" not in notes(NAMESPACE, "nri")


@pytest.mark.cluster
def test_notes_warn_of_a_switch_that_takes_the_webhook_away(cluster: Cluster) -> None:
    release = f"switched-{uuid4().hex[:6]}"
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"{release}-joulepath-webhook"},
    }

    def notes() -> str:
        options = ("--namespace", release, "--dry-run=server", "--set", "crds.install=false,injection=nri")
        return cluster.helm("install", release, CHART, *options)

    cluster.kubectl("create", "namespace", release)
    try:
        assert "WARNING" not in notes()
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(hook))
        assert "WARNING: this switches from injection: volumes to nri" in notes()
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", f"{release}-joulepath-webhook", "--ignore-not-found")
        cluster.kubectl("delete", "namespace", release, "--wait=false")


def certificate(cluster: Cluster, *arguments: str) -> tuple[Object, Object, set[str]]:
    """The webhook's configuration, the volume of its certificate, and the kinds that are rendered."""
    objects = render(cluster, *arguments)
    hook = only(objects, "MutatingWebhookConfiguration", "joulepath-webhook")
    (volume,) = (one["secret"] for one in workloads(objects)["webhook"]["volumes"] if one["name"] == "tls")
    return hook, volume, {one["kind"] for one in objects}


@pytest.mark.cluster
def test_a_certificate_of_the_site_s_own_is_taken_and_rendered_alike_each_time(cluster: Cluster) -> None:
    """What GitOps asks for: the same values give the same objects."""
    authority = b64encode(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n").decode()
    given = f"webhook.certificate.existingSecret=own,webhook.certificate.caBundle={authority}"
    hook, volume, kinds = certificate(cluster, "--set-string", given)
    assert hook["webhooks"][0]["clientConfig"]["caBundle"] == authority
    assert volume == {"secretName": "own"}
    assert "Secret" not in kinds
    assert render(cluster, "--set-string", given) == render(cluster, "--set-string", given)


@pytest.mark.cluster
def test_cert_manager_makes_and_renews_the_certificate(cluster: Cluster) -> None:
    given = "webhook.certificate.certManager.issuerRef.name=site,webhook.certificate.certManager.issuerRef.kind=Issuer"
    hook, volume, kinds = certificate(cluster, "--set", given)
    assert hook["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/joulepath-webhook"}
    assert "caBundle" not in hook["webhooks"][0]["clientConfig"]
    assert "Secret" not in kinds
    objects = render(cluster, "--set", given)
    wanted = only(objects, "Certificate", "joulepath-webhook")["spec"]
    assert wanted["secretName"] == volume["secretName"]
    assert f"joulepath-webhook.{NAMESPACE}.svc" in wanted["dnsNames"]
    assert wanted["issuerRef"] == {"name": "site", "kind": "Issuer"}
    assert objects == render(cluster, "--set", given)


@pytest.mark.cluster
def test_helm_and_cert_manager_share_no_secret(cluster: Cluster) -> None:
    """cert-manager leaves its Secret behind, and Helm takes over none that it hasn't made."""
    _, made_by_helm, kinds = certificate(cluster)
    assert "Secret" in kinds
    _, issued, _ = certificate(cluster, "--set", "webhook.certificate.certManager.issuerRef.name=site")
    assert issued["secretName"] != made_by_helm["secretName"]


@pytest.mark.cluster
@pytest.mark.parametrize("left", [None, {}, {"certManager": {}}])
def test_values_of_a_chart_before_the_certificate_s_mean_its_defaults(
    cluster: Cluster, tmp_path: Path, left: Object | None
) -> None:
    """`helm upgrade --reuse-values` puts the values of the chart before in place of the chart's own."""
    older = shutil.copytree(CHART, tmp_path / "joulepath")
    values = yaml.safe_load((older / "values.yaml").read_text())
    del values["webhook"]["certificate"]
    if left is not None:
        values["webhook"]["certificate"] = left
    (older / "values.yaml").write_text(yaml.safe_dump(values))
    objects = [
        one
        for one in yaml.safe_load_all(cluster.helm("template", "joulepath", older, "--set", "injection=volumes"))
        if one
    ]
    made = only(objects, "Secret", "joulepath-webhook")
    assert set(made["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    (loaded,) = ssl.create_default_context(cadata=b64decode(made["data"]["ca.crt"]).decode()).get_ca_certs()
    assert ssl.cert_time_to_seconds(str(loaded["notAfter"])) > time.time() + 3600 * 24 * 365


@pytest.mark.cluster
def test_upgrades_keep_the_certificate_that_was_made_at_install(cluster: Cluster) -> None:
    release = f"kept-{uuid4().hex[:6]}"

    def rendered() -> tuple[Object, str]:
        options = ("--namespace", release, "--dry-run=server", "--set", "crds.install=false,injection=volumes")
        objects = list(yaml.safe_load_all(cluster.helm("template", release, CHART, *options)))
        name = f"{release}-joulepath-webhook"
        (hook,) = only(objects, "MutatingWebhookConfiguration", name)["webhooks"]
        return only(objects, "Secret", name), hook["clientConfig"]["caBundle"]

    secret, authority = rendered()
    assert secret["data"]["ca.crt"] == authority
    owner = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": release}
    secret["metadata"]["annotations"] = owner
    assert rendered()[1] != authority
    cluster.kubectl("create", "namespace", release)
    try:
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
        upgraded, same_authority = rendered()
        assert upgraded["data"] == secret["data"]
        assert same_authority == authority
    finally:
        cluster.kubectl("delete", "namespace", release, "--wait=false")


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
