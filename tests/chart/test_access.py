"""Who may ask the chart's pods, and whom they ask: network policies, and metrics by HTTPS."""

from __future__ import annotations

import json
import ssl
from base64 import b64decode
from typing import Any

import pytest

from real_cluster import Cluster
from tests.chart.rendering import NAMESPACE, Object, grants, only, render, workloads


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
