"""The patch: what it adds, and that what the user wrote stays."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_injector.places import in_the_way
from joulepath_operator.injection.patch import Outcome, inject, left_out

GPUS = ("nvidia.com/gpu",)
BOOTSTRAP = "/joulepath/current/joulepath_trainer/bootstrap"
ANNOTATION = "joulepath.dev/injected"
GPU = {"limits": {"nvidia.com/gpu": "4"}}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "gpt3-worker-0", "labels": {"a": "b"}},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def container(name: str = "pytorch", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "example.test/user:1", "resources": GPU, **fields}


def applied(body: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    result: dict[str, Any] = jsonpatch.apply_patch(body, json.loads(json.dumps(outcome.patch)))
    return result


def variables(body: dict[str, Any], index: int = 0) -> dict[str, str]:
    return {one["name"]: one.get("value") for one in body["spec"]["containers"][index].get("env", [])}


def reader_of(body: dict[str, Any]) -> dict[str, Any]:
    """The one init container that there is."""
    (reader,) = applied(body, inject(body, GPUS))["spec"]["initContainers"]
    assert isinstance(reader, dict)
    return reader


def test_a_pod_that_ends_with_what_does_not_begin_gets_no_init_container() -> None:
    outcome = inject(pod(restartPolicy="Never"), GPUS)
    assert not outcome.patch
    assert "set PYTHONPATH in the env of its container pytorch, to what the image has" in outcome.obstacles[0]
    own = container("second", env=[{"name": "PYTHONPATH", "value": "/app"}])
    body = pod(container(), own, restartPolicy="Never")
    outcome = inject(body, GPUS)
    assert not outcome.starts_first
    made = applied(body, outcome)
    assert made["metadata"]["annotations"][ANNOTATION] == "second"
    assert "restartPolicy is Never" in left_out(made, GPUS)
    for again in ("Always", "OnFailure"):
        assert inject(pod(restartPolicy=again), GPUS).starts_first


@pytest.mark.parametrize(("version", "kind", "starts_first"), [("batch/v1", "Job", False), ("x/v1", "Job", True)])
def test_a_pod_of_a_job_that_counts_restarts_gets_no_init_container(
    version: str, kind: str, starts_first: bool
) -> None:
    owner = {"apiVersion": version, "kind": kind, "name": "j", "uid": "u", "controller": True}
    body = pod(container(), restartPolicy="OnFailure")
    body["metadata"]["ownerReferences"] = [owner]
    assert inject(body, GPUS).starts_first is starts_first
    body["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": "/app"}]
    outcome = inject(body, GPUS)
    assert outcome.patch
    assert not outcome.starts_first


def test_a_training_pod_gets_all_that_the_trainer_needs_and_no_image_of_ours() -> None:
    outcome = inject(pod(), GPUS)
    body = applied(pod(), outcome)
    assert outcome.starts_first
    (reader,) = body["spec"]["initContainers"]
    assert reader["name"] == "joulepath-pythonpath"
    assert reader["image"] == "example.test/user:1"
    said = 'printf %s "$PYTHONPATH" > /joulepath-image/pythonpath || true'
    assert reader["command"] == ["/joulepath/current/busybox", "sh", "-c", said]
    assert [(one["mountPath"], one.get("readOnly", False)) for one in reader["volumeMounts"]] == [
        ("/joulepath", True),
        ("/joulepath-image", False),
    ]
    assert variables(body) == {
        "PYTHONPATH": BOOTSTRAP,
        "JOULEPATH_IMAGE_PYTHONPATH_FILE": "/joulepath-image/pythonpath",
        "JOULEPATH_SOCKET": "/run/joulepath/agent.sock",
    }
    volumes = {one.pop("name"): one for one in body["spec"]["volumes"]}
    assert volumes == {
        "joulepath": {"hostPath": {"path": "/var/lib/joulepath/trainer", "type": "DirectoryOrCreate"}},
        "joulepath-socket": {"hostPath": {"path": "/run/joulepath", "type": "DirectoryOrCreate"}},
        "joulepath-image": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    }
    assert all(one["readOnly"] for one in body["spec"]["containers"][0]["volumeMounts"])
    assert body["metadata"]["annotations"] == {ANNOTATION: "pytorch"}


def test_the_init_container_passes_the_restricted_level_but_for_hostpath() -> None:
    context = reader_of(pod())["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_init_container_asks_for_what_its_training_container_does_but_for_gpus() -> None:
    """What a LimitRange or a quota lets train, it lets be prepared; and the pod's own request doesn't grow."""
    gpus = {"nvidia.com/gpu": "4", "hugepages-2Mi": "1Gi"}
    one = container(
        resources={
            "requests": {"cpu": "8", "memory": "64Gi", **gpus},
            "limits": {"memory": "64Gi", **gpus},
            "claims": [{"name": "nic"}],
        }
    )
    assert reader_of(pod(one))["resources"] == {
        "requests": {"cpu": "8", "memory": "64Gi"},
        "limits": {"memory": "64Gi"},
    }
    assert reader_of(pod())["resources"] == {}


@pytest.mark.parametrize("whole", [8, "8", "8000m", 8.0])
def test_the_init_container_takes_no_cpus_to_itself(whole: Any) -> None:
    """Exclusive CPUs without a GPU could lie on another NUMA node than the GPUs of the training container."""
    guaranteed = {"cpu": whole, "memory": "64Gi"}
    body = pod(container(resources={"requests": guaranteed, "limits": guaranteed | GPU["limits"]}))
    result = applied(body, inject(body, GPUS))
    shared = {"cpu": "7999m", "memory": "64Gi"}
    assert reader_of(body)["resources"] == {"requests": shared, "limits": shared}
    assert result["spec"]["containers"][0]["resources"] == body["spec"]["containers"][0]["resources"]
    defaulted = pod(container(resources={"limits": {"cpu": whole, **GPU["limits"]}}))
    assert reader_of(defaulted)["resources"] == {"limits": {"cpu": "7999m"}}


@pytest.mark.parametrize(("request_", "limit"), [("4", "8"), ("7500m", "7500m"), ("0", "0"), ("500m", "8")])
def test_cpus_that_are_shared_anyway_are_asked_for_alike(request_: str, limit: str) -> None:
    """So that the ratio of limit and request stays, for which a LimitRange may have a greatest."""
    body = pod(container(resources={"requests": {"cpu": request_}, "limits": {"cpu": limit, **GPU["limits"]}}))
    assert reader_of(body)["resources"] == {"requests": {"cpu": request_}, "limits": {"cpu": limit}}


@pytest.mark.parametrize(("path", "written"), [("/app:/lib", True), ("", True), ("/app", False)])
def test_the_init_container_writes_the_pythonpath_down_and_passes_where_it_cannot(
    tmp_path: Path, path: str, written: bool
) -> None:
    said = reader_of(pod())["command"][-1].replace("/joulepath-image/", f"{tmp_path}/{'' if written else 'missing/'}")
    subprocess.run(["sh", "-c", said], env={"PYTHONPATH": path} if path else {}, check=True)
    assert [one.read_text() for one in tmp_path.iterdir()] == ([path] if written else [])


def test_the_user_s_own_user_runs_the_user_s_image() -> None:
    """A pod that must not run as root starts, though the image's own user is root."""
    body = pod(container(securityContext={"runAsUser": 1000, "runAsNonRoot": True, "privileged": False}))
    reader = reader_of(body)
    assert reader["securityContext"]["runAsUser"] == 1000
    assert reader["securityContext"]["runAsNonRoot"] is True
    assert "privileged" not in reader["securityContext"]


def test_a_pythonpath_by_value_stays_behind_ours_at_its_place() -> None:
    env = [
        {"name": "ROOT", "value": "/app"},
        {"name": "PYTHONPATH", "value": "$(ROOT)/src"},
        {"name": "Z", "value": "1"},
    ]
    body = pod(container(env=env))
    outcome = inject(body, GPUS)
    assert not outcome.starts_first
    result = applied(body, outcome)
    assert result["spec"]["containers"][0]["env"][1] == {
        "name": "PYTHONPATH",
        "value": f"{BOOTSTRAP}:$(ROOT)/src",
    }
    assert "JOULEPATH_IMAGE_PYTHONPATH_FILE" not in variables(result)
    assert "initContainers" not in result["spec"], "nothing could fail"
    assert [one["name"] for one in result["spec"]["volumes"]] == ["joulepath", "joulepath-socket"]


def test_an_empty_pythonpath_is_told_to_be_empty() -> None:
    body = pod(container(env=[{"name": "PYTHONPATH"}]))
    result = applied(body, inject(body, GPUS))
    assert variables(result)["PYTHONPATH"] == BOOTSTRAP
    assert variables(result)["JOULEPATH_IMAGE_PYTHONPATH_FILE"] == "/dev/null"


def test_which_container_was_left_out_is_told_beside_one_whose_pythonpath_is_empty() -> None:
    empty = container("empty", env=[{"name": "PYTHONPATH"}])
    body = pod(empty, container("second", image="b"), container("third", image="c"))
    assert left_out(applied(body, inject(body, GPUS)), GPUS).startswith("its container third has another image")


def test_a_pythonpath_by_valuefrom_is_left_with_a_warning() -> None:
    source = {"configMapKeyRef": {"name": "c", "key": "k"}}
    body = pod(container(env=[{"name": "PYTHONPATH", "valueFrom": source}]), container("second"))
    outcome = inject(body, GPUS)
    result = applied(body, outcome)
    assert "pytorch" in outcome.warnings[0]
    assert result["spec"]["containers"][0] == body["spec"]["containers"][0]
    assert result["metadata"]["annotations"] == {ANNOTATION: "second"}
    assert inject(pod(body["spec"]["containers"][0]), GPUS).patch == ()


def test_a_pythonpath_by_envfrom_is_read_where_it_is_used() -> None:
    body = pod(container(envFrom=[{"configMapRef": {"name": "c"}}]))
    assert reader_of(body)["envFrom"] == [{"configMapRef": {"name": "c"}}]


def test_only_containers_with_gpus_are_injected() -> None:
    body = pod(container("side", resources={}), container("one"), container("two"))
    result = applied(body, inject(body, GPUS))
    assert result["spec"]["containers"][0] == body["spec"]["containers"][0]
    assert len(result["spec"]["initContainers"]) == 1, "of one image"
    assert result["metadata"]["annotations"][ANNOTATION] == "one,two"
    assert inject(pod(container(resources={})), GPUS) == Outcome()
    assert inject(pod(container(resources={"limits": {"nvidia.com/gpu": "0"}})), GPUS) == Outcome()


@pytest.mark.parametrize("other", [{"image": "example.test/other:1"}, {"envFrom": [{"secretRef": {"name": "s"}}]}])
def test_only_one_images_pythonpath_is_kept_and_others_are_left_with_a_warning(other: dict[str, Any]) -> None:
    own = container("own", image="example.test/third:1", env=[{"name": "PYTHONPATH", "value": "/app"}])
    body = pod(container("one"), container("two", **other), own)
    outcome = inject(body, GPUS)
    result = applied(body, outcome)
    assert [one["image"] for one in result["spec"]["initContainers"]] == ["example.test/user:1"]
    assert result["spec"]["containers"][1] == body["spec"]["containers"][1]
    assert result["metadata"]["annotations"][ANNOTATION] == "one,own"
    (warning,) = outcome.warnings
    assert "its container two has another image or envFrom than its container one" in warning
    assert "set PYTHONPATH in its env" in warning


def test_other_resources_can_stand_for_gpus() -> None:
    body = pod(container(resources={"limits": {"site.example/gpu": 1}}))
    assert inject(body, GPUS) == Outcome()
    assert inject(body, ("nvidia.com/gpu", "site.example/gpu")).patch


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"os": {"name": "windows"}}, "windows"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "windows"),
        ({"hostUsers": False}, "hostUsers"),
        ({"volumes": [{"name": "joulepath", "emptyDir": {}}]}, "joulepath"),
        ({"volumes": [{"name": "joulepath-image", "emptyDir": {}}]}, "joulepath-image"),
        ({"initContainers": [{"name": "joulepath-pythonpath", "image": "i"}]}, "joulepath-pythonpath"),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/joulepath-image"}])]},
            "/joulepath-image",
        ),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/joulepath/"}])]}, "/joulepath"),
        ({"containers": [container(str(index)) for index in range(65)]}, "65 containers"),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/run/joulepath/x"}])]}, "/run/joulepath"),
    ],
)
def test_whatever_would_clash_is_left_alone_with_a_warning(spec: dict[str, Any], word: str) -> None:
    outcome = inject(pod(**spec) if "containers" not in spec else {"metadata": {}, "spec": spec}, GPUS)
    assert outcome.patch == ()
    assert word in outcome.warnings[0]


words = st.text("abcxyz", min_size=1, max_size=4)
texts = st.text("abc/:$()", max_size=8)


@st.composite
def containers(draw: st.DrawFn, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": name, "image": draw(words)}
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(["PYTHONPATH", "PATH", "A", "B"]), unique=True))
        fields["env"] = [{"name": one, "value": draw(texts)} for one in names]
    if draw(st.booleans()):
        paths = draw(st.lists(st.sampled_from(["/data", "/runs", "/joulepathology", "/var"]), unique=True))
        fields["volumeMounts"] = [{"name": "user", "mountPath": path} for path in paths]
    if draw(st.booleans()):
        fields["resources"] = draw(st.sampled_from([GPU, {}, {"limits": {"cpu": "1"}}]))
    if draw(st.booleans()):
        fields["securityContext"] = {"runAsUser": draw(st.integers(0, 2000))}
    return fields


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    spec: dict[str, Any] = {"containers": [draw(containers(name)) for name in names]}
    if draw(st.booleans()):
        spec["initContainers"] = [{"name": f"init-{name}", "image": "i"} for name in draw(st.lists(words, unique=True))]
    if draw(st.booleans()):
        spec["volumes"] = [{"name": "user", "emptyDir": {}}]
    metadata: dict[str, Any] = {"name": "p"}
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.dictionaries(words, texts, max_size=2))
    return {"metadata": metadata, "spec": spec, "kind": "Pod"}


@given(pods())
def test_whatever_the_user_wrote_stays(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    outcome = inject(body, GPUS)
    assert body == before, "the pod that was given is not touched"
    after = applied(body, outcome)
    if not outcome.patch:
        assert after == body
        return
    assert inject(after, GPUS) == Outcome(), "a second time changes nothing"
    ours = ("containers", "initContainers", "volumes")
    rest = {key: value for key, value in after["spec"].items() if key not in ours}
    assert rest == {key: value for key, value in body["spec"].items() if key not in ours}
    own, init = body["spec"].get("initContainers", []), after["spec"].get("initContainers", [])
    assert init[len(init) - len(own) :] == own
    assert len(init) - len(own) == outcome.starts_first
    assert after["spec"]["volumes"][: len(body["spec"].get("volumes", []))] == body["spec"].get("volumes", [])
    assert body["metadata"].get("annotations", {}).items() <= after["metadata"]["annotations"].items()
    for old, new in zip(body["spec"]["containers"], after["spec"]["containers"], strict=True):
        rest = {key: value for key, value in new.items() if key not in ("env", "volumeMounts")}
        assert rest == {key: value for key, value in old.items() if key not in ("env", "volumeMounts")}
        assert new.get("volumeMounts", [])[: len(old.get("volumeMounts", []))] == old.get("volumeMounts", [])
        for was, now in zip(old.get("env", []), new.get("env", []), strict=False):
            assert now["name"] == was["name"]
            assert now == was or (was["name"] == "PYTHONPATH" and now["value"].endswith(was["value"]))
        paths = [mount["mountPath"] for mount in new.get("volumeMounts", [])]
        assert len(paths) == len(set(paths))
    names = [one["name"] for one in (*init, *after["spec"]["containers"])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("path", "meets"),
    [
        *((path, True) for path in ("/", "/run", "/run/", "/var/run", "/var/run/joulepath", "//joulepath")),
        *((path, True) for path in ("/./joulepath", "/x/../joulepath/y")),
        *((path, False) for path in ("/var", "/run/joulepath/../x", "/run/joulepath-other", "/joulepaths", "/data")),
    ],
)
def test_a_mount_is_in_the_way_where_the_node_s_injector_would_find_it_so_too(path: str, meets: bool) -> None:
    body = pod(container(volumeMounts=[{"name": "v", "mountPath": path}]))
    assert (not inject(body, GPUS).patch) == in_the_way(path) == meets
