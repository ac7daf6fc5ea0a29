"""What the chart renders by its values, and what a wrong one says."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from uuid import uuid4

import jsonschema
import pytest
import yaml

from joulepath_crds import JOB_NAMES
from real_cluster import Cluster, CommandError
from tests.chart.rendering import CHART, NAMESPACE, ROOT, Object, grants, only, render, workloads

TOLD = "nodereports", "nodestates", "nodemeasurements"
"""What agents write."""


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
        ("--set", "flowControl.shares=40"),
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
        "EnergyPolicy",
        "EnergyProfile",
        "JobPlan",
        "NodeMeasurement",
        "NodeReport",
        "NodeState",
    }
    assert all(one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for one in definitions)


@pytest.mark.cluster
def test_definitions_can_be_left_to_somebody_else(cluster: Cluster) -> None:
    assert "CustomResourceDefinition" not in {one["kind"] for one in render(cluster, "--set", "crds.install=false")}


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
        *(f"joulepath.dev/{told}{of}" for told in TOLD for of in ("", "/status")),
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
    assert after - before == {("get", "kubeflow.org/pytorchjobs"), ("get", "trainer.kubeflow.org/trainjobs")}


@pytest.mark.cluster
@pytest.mark.parametrize("injection", ["nri", "volumes"])
def test_jobs_of_each_kind_may_be_read_by_who_needs_that_and_written_by_nobody(
    cluster: Cluster, injection: str
) -> None:
    made = render(cluster, "--set", f"injection={injection}")
    kinds = {f"{one.group}/{one.plural}" for one in JOB_NAMES}
    below = {f"{one.group}/{one.plural}" for one in JOB_NAMES if one.made_by}
    readers = {"operator": kinds, "agent": kinds if injection == "nri" else below}
    readers |= {"webhook": kinds} if injection == "volumes" else {}
    for part, readable in readers.items():
        granted = {(verb, what) for verb, what in grants(made, part) if what in kinds}
        verbs = ("get", "list", "watch") if part == "operator" else ("get",)
        assert granted == {(verb, what) for verb in verbs for what in readable}


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
    of_a_job, _ = (one["expression"] for one in hook["matchConditions"])
    made_by_themselves = {one.pod_label for one in JOB_NAMES if one.kind in ("PyTorchJob", "Job")}
    assert set(re.findall('"([^"]+)"', of_a_job)) == made_by_themselves
    assert hook["namespaceSelector"] == {"matchLabels": {"joulepath.dev/injection": "volumes"}}


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
