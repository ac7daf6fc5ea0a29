"""What a container gets, and which one can't get it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from joulepath_injector.adjust import adjustment, has_trainer, unsuited
from joulepath_injector.nri.messages import Container, Mount, Pod
from joulepath_injector.places import BOOTSTRAP, FILES, SOCKET_FOLDER
from joulepath_operator.injection import init_container, patch
from joulepath_trainer.wire.protocol import SOCKET_PATH

POD = Pod("sandbox", "uid", "team", "pod")


def given(*env: str, mounts: tuple[str, ...] = (), user_namespace: bool = False) -> Container:
    there = tuple(Mount(one, "/somewhere") for one in ("/proc", "/dev/shm", "/etc/hosts", *mounts))
    return Container("sandbox", "pytorch", env, there, user_namespace)


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ((), BOOTSTRAP),
        (("PYTHONPATH=",), BOOTSTRAP),
        (("A=PYTHONPATH=/no", "PYTHONPATH=/opt/user:/x=y"), f"{BOOTSTRAP}:/opt/user:/x=y"),
    ],
)
def test_the_python_path_that_the_process_would_have_stays_behind_ours(env: tuple[str, ...], path: str) -> None:
    made = adjustment(given(*env), Path("/files"), Path("/pod"))
    empty = {"JOULEPATH_IMAGE_PYTHONPATH_FILE": "/dev/null"} if path == BOOTSTRAP else {}
    assert made.env == {"PYTHONPATH": path, "JOULEPATH_SOCKET": "/run/joulepath/agent.sock", **empty}
    assert made.mounts == (Mount("/joulepath", "/files"), Mount("/run/joulepath", "/pod"))


def test_both_ways_of_injection_lead_to_the_same_places() -> None:
    assert f"{SOCKET_FOLDER}/agent.sock" == SOCKET_PATH
    assert init_container.FILES == FILES
    pod = {"spec": {"containers": [{"name": "pytorch", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}}
    added = patch.inject(pod, ["nvidia.com/gpu"]).patch[2]["value"][0]["env"]
    webhooks = given(*(f"{one['name']}={one['value']}" for one in added))
    assert has_trainer(webhooks)
    assert not has_trainer(given("PYTHONPATH=/opt/user"))


@pytest.mark.parametrize("mount", [
    *("/joulepath", "/joulepath/x", "/run/joulepath/", "/run/joulepath/a/b", "/run", "/var/run", "/"),
    *("/var/run/joulepath", "/var/run/joulepath/x", "//joulepath", "//run/joulepath/x", "/run/./joulepath/x", "/x/.."),
    *("/x/../run/joulepath/x", "/var/run/../joulepath", "/var/../run/", "/../joulepath", "joulepath/x"),
])  # fmt: skip
def test_a_container_that_mounts_something_in_our_place_itself_is_unsuited(mount: str) -> None:
    assert unsuited(POD, given(mounts=(mount,))) == f"The container mounts {mount} itself."


@pytest.mark.parametrize("mount", [
    *("/joulepath2", "/run/joulepath-2", "/var/run/secrets/kubernetes.io/serviceaccount"),
    *("/joulepath/../data", "/run/joulepath/../other", "/var/joulepath", "/data/joulepath", "/var"),
])  # fmt: skip
def test_a_mount_elsewhere_is_in_nobodys_way(mount: str) -> None:
    assert not unsuited(POD, given(mounts=(mount,)))


def test_a_python_path_that_is_set_twice_is_left_alone() -> None:
    twice = given("PYTHONPATH=/of/the/image", "A=1", "PYTHONPATH=/of/the/pod")
    assert unsuited(POD, twice).startswith("Both image and pod set PYTHONPATH")
    assert not unsuited(POD, given("PYTHONPATH=/of/the/image", "A=1"))


def test_a_python_path_that_no_process_could_begin_with_is_left_alone(tmp_path: Path) -> None:
    most = 128 * 1024 - 1 - len(f"PYTHONPATH={BOOTSTRAP}:")
    longest = given(f"PYTHONPATH={'x' * most}")
    assert not unsuited(POD, longest)
    variable = f"PYTHONPATH={adjustment(longest, tmp_path, tmp_path).env['PYTHONPATH']}"
    subprocess.run(["true"], env={"PYTHONPATH": variable.partition("=")[2]}, check=True)
    for path in ("x" * (most + 1), "é" * (most // 2 + 1)):
        assert "would pass 128 KiB" in unsuited(POD, given(f"PYTHONPATH={path}"))


def test_a_pod_with_a_user_namespace_of_its_own_is_unsuited() -> None:
    why = "The pod has a user namespace of its own (hostUsers: false)."
    assert unsuited(POD, given(user_namespace=True)) == why
    assert unsuited(Pod("sandbox", "uid", "team", "pod", user_namespace=True), given()) == why
