"""Profiles of the cluster: the same plans from a manifest on disk and from an API server."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.command import Run

PATH = "/apis/joulepath.dev/v1alpha1/namespaces/ml/energyprofiles/gpt3"


@pytest.fixture
def kubeconfig(manifest: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A kubeconfig for a server that knows this one profile."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == PATH
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(manifest if found else {}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {}}],
                "current-context": "x",
            }
        )
    )
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    yield path
    server.shutdown()
    server.server_close()


def test_shape_lags_and_tails_come_with_the_profile(run: Run, yaml_file: Path) -> None:
    ran = run("plan", yaml_file, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["schedule"], len(found["ranks"]), len(found["ranks"][0]["instructions"])) == ("1f1b", 4, 12)
    assert "lag 4 ms (p95)" in run("plan", yaml_file).out
    assert "lag" not in run("plan", yaml_file, "--lag-ms", 0).out.splitlines()[0]
    untailed = json.loads(run("plan", yaml_file, "--tail-ms", 0, "--json").out)
    assert found["t_min_s"] == pytest.approx(untailed["t_min_s"] + 0.01)


def test_its_standard_errors_are_jitter(run: Run, yaml_file: Path) -> None:
    found = json.loads(run("plan", yaml_file, "--quantile", "95%", "--samples", 20, "--json").out)
    assert found["jitter"]["samples"] == 20


def test_what_the_command_line_says_goes_before_the_profile(run: Run, yaml_file: Path) -> None:
    found = json.loads(run("plan", yaml_file, "--schedule", "gpipe", "--microbatches", 3, "--json").out)
    assert (found["schedule"], len(found["ranks"][0]["instructions"])) == ("gpipe", 6)


def test_a_profile_of_the_cluster_is_the_same(run: Run, yaml_file: Path, kubeconfig: Path) -> None:
    assert kubeconfig.exists()
    assert run("plan", "energyprofile/ml/gpt3", "--json").out == run("plan", yaml_file, "--json").out
    ran = run("plan", "energyprofile/ml/other", "--json")
    assert ran.status == 2
    assert "energyprofile/ml/other: the cluster answers 404 Not Found; kubectl get energyprofiles -A tells" in ran.err


def test_no_cluster_and_no_name_are_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
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
