"""The images hold what their part needs, and run as the chart runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from real_cluster import Cluster, images, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, sys.argv[1] + "."):
    if not module.name.endswith("__main__"):
        print(importlib.import_module(module.name).__name__)
"""
VERSION = yaml.safe_load((ROOT / "charts/joulepath/Chart.yaml").read_text())["appVersion"]


def tag(part: str) -> str:
    """The tag that the chart asks for by default."""
    return f"joulepath.local/{part}:{VERSION}"


def archive(part: str) -> Path:
    """The image of a part, built unless nothing has changed."""
    return images.build(ROOT / "Dockerfile", part, tag(part))


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"images-{uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def output(cluster: Cluster, namespace: str, part: str, user: int, *arguments: str, command: Sequence[str] = ()) -> str:
    """What a container of the image says, run without any privilege on a root that can't be written."""
    cluster.load(archive(part))
    name = f"{part}-{uuid4().hex[:6]}"
    context = {
        "runAsUser": user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "main",
        "image": tag(part),
        "imagePullPolicy": "Never",
        "args": list(arguments),
        **({"command": list(command)} if command else {}),
        "securityContext": context,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(pod))

    def ended() -> bool:
        phase = cluster.kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
        assert phase != "Failed", cluster.kubectl("-n", namespace, "logs", name)
        return phase == "Succeeded"

    until(f"the end of {name}", 120, ended)
    return cluster.kubectl("-n", namespace, "logs", name)


def test_operator_runs_as_nobody(cluster: Cluster, namespace: str) -> None:
    assert "--planner-timeout" in output(cluster, namespace, "operator", 65532, "run", "--help")


def test_webhook_is_in_the_operators_image(cluster: Cluster, namespace: str) -> None:
    assert "--tls-cert" in output(cluster, namespace, "operator", 65532, "webhook", "--help")


def test_preflight_is_in_the_operators_image(cluster: Cluster, namespace: str) -> None:
    said = output(
        cluster, namespace, "operator", 65532, "-m", "joulepath_cli", "preflight", "--help", command=("python3",)
    )
    assert "--injection" in said


def test_agent_runs_without_privileges(cluster: Cluster, namespace: str) -> None:
    assert "--pod-resources" in output(cluster, namespace, "agent", 0, "--help")


@pytest.mark.parametrize(
    ("program", "option"), [("clocks", "--on-foreign-clock"), ("warden", "--reset-all"), ("injector", "--nri-socket")]
)
def test_the_agents_image_has_all_programs_of_its_pod(
    cluster: Cluster, namespace: str, program: str, option: str
) -> None:
    assert option in output(cluster, namespace, "agent", 0, "--help", command=(f"joulepath-{program}",))


@pytest.mark.parametrize(("part", "user"), [("operator", 65532), ("agent", 0)])
def test_every_module_of_an_image_finds_what_it_imports(cluster: Cluster, namespace: str, part: str, user: int) -> None:
    assert f"joulepath_{part}.metrics" in output(
        cluster, namespace, part, user, IMPORT_ALL, f"joulepath_{part}", command=("python3", "-c")
    )


def test_the_agents_image_has_a_busybox_that_runs_in_any_image(cluster: Cluster, namespace: str) -> None:
    busybox = "/opt/joulepath/bin/busybox"
    said = output(cluster, namespace, "agent", 12345, "-c", f"ldd {busybox} 2>&1; {busybox} true", command=("sh",))
    assert "not a dynamic executable" in said
