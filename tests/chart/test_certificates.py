"""The certificate of the webhook: made by Helm, by cert-manager, or the site's own."""

from __future__ import annotations

import shutil
import ssl
import time
from base64 import b64decode, b64encode
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from real_cluster import Cluster
from tests.chart.rendering import CHART, NAMESPACE, Object, only, render, workloads


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
