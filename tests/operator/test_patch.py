"""The patch: what it adds, and that what the user wrote stays."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_operator.injection.patch import Injection, Outcome, inject

INJECTION = Injection("example.test/trainer:1")
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


def test_a_training_pod_gets_all_that_the_trainer_needs() -> None:
    body = applied(pod(), inject(pod(), INJECTION))
    assert [one["name"] for one in body["spec"]["initContainers"]] == ["joulepath-trainer", "joulepath-pythonpath"]
    filler, reader = body["spec"]["initContainers"]
    assert filler["image"] == "example.test/trainer:1"
    assert reader["image"] == "example.test/user:1"
    assert reader["command"][-1] == 'printf %s "$PYTHONPATH" > /joulepath/pythonpath-pytorch || true'
    assert variables(body) == {
        "PYTHONPATH": "/joulepath/joulepath_trainer/bootstrap",
        "JOULEPATH_IMAGE_PYTHONPATH_FILE": "/joulepath/pythonpath-pytorch",
        "JOULEPATH_SOCKET": "/run/joulepath/agent.sock",
    }
    volumes = {one["name"]: one for one in body["spec"]["volumes"]}
    assert volumes["joulepath-socket"]["hostPath"] == {"path": "/run/joulepath", "type": "DirectoryOrCreate"}
    assert volumes["joulepath"] == {"name": "joulepath", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}
    assert all(one["readOnly"] for one in body["spec"]["containers"][0]["volumeMounts"])
    assert body["metadata"]["annotations"] == {ANNOTATION: "pytorch"}


def test_init_containers_pass_the_restricted_level_but_for_hostpath() -> None:
    for one in applied(pod(), inject(pod(), INJECTION))["spec"]["initContainers"]:
        context = one["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_init_containers_ask_for_what_their_training_container_does_but_for_gpus() -> None:
    """What a LimitRange or a quota lets train, it lets be prepared; and the pod's own request doesn't grow."""
    gpus = {"nvidia.com/gpu": "4", "hugepages-2Mi": "1Gi"}
    one = container(
        resources={
            "requests": {"cpu": "8", "memory": "64Gi", **gpus},
            "limits": {"memory": "64Gi", **gpus},
            "claims": [{"name": "nic"}],
        }
    )
    two = container("two", resources={"requests": {"cpu": "2"}, **GPU})
    body = pod(one, two)
    filler, first, second = applied(body, inject(body, INJECTION))["spec"]["initContainers"]
    assert (
        filler["resources"]
        == first["resources"]
        == {
            "requests": {"cpu": "8", "memory": "64Gi"},
            "limits": {"memory": "64Gi"},
        }
    )
    assert second["resources"] == {"requests": {"cpu": "2"}}
    plain = pod()
    assert [it["resources"] for it in applied(plain, inject(plain, INJECTION))["spec"]["initContainers"]] == [{}, {}]


@pytest.mark.parametrize("whole", [8, "8", "8000m", 8.0])
def test_init_containers_take_no_cpus_to_themselves(whole: Any) -> None:
    """Exclusive CPUs without a GPU could lie on another NUMA node than the GPUs of the training container."""
    guaranteed = {"cpu": whole, "memory": "64Gi"}
    body = pod(container(resources={"requests": guaranteed, "limits": guaranteed | GPU["limits"]}))
    result = applied(body, inject(body, INJECTION))
    shared = {"cpu": "7999m", "memory": "64Gi"}
    for one in result["spec"]["initContainers"]:
        assert one["resources"] == {"requests": shared, "limits": shared}
    assert result["spec"]["containers"][0]["resources"] == body["spec"]["containers"][0]["resources"]
    defaulted = pod(container(resources={"limits": {"cpu": whole, **GPU["limits"]}}))
    assert applied(defaulted, inject(defaulted, INJECTION))["spec"]["initContainers"][0]["resources"] == {
        "limits": {"cpu": "7999m"}
    }


@pytest.mark.parametrize(("request_", "limit"), [("4", "8"), ("7500m", "7500m"), ("0", "0"), ("500m", "8")])
def test_cpus_that_are_shared_anyway_are_asked_for_alike(request_: str, limit: str) -> None:
    """So that the ratio of limit and request stays, for which a LimitRange may have a greatest."""
    body = pod(container(resources={"requests": {"cpu": request_}, "limits": {"cpu": limit, **GPU["limits"]}}))
    filler = applied(body, inject(body, INJECTION))["spec"]["initContainers"][0]
    assert filler["resources"] == {"requests": {"cpu": request_}, "limits": {"cpu": limit}}


def test_the_user_s_own_user_runs_the_user_s_image() -> None:
    """A pod that must not run as root starts, though the image's own user is root."""
    body = pod(container(securityContext={"runAsUser": 1000, "runAsNonRoot": True, "privileged": False}))
    reader = applied(body, inject(body, INJECTION))["spec"]["initContainers"][1]
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
    result = applied(body, inject(body, INJECTION))
    assert result["spec"]["containers"][0]["env"][1] == {
        "name": "PYTHONPATH",
        "value": "/joulepath/joulepath_trainer/bootstrap:$(ROOT)/src",
    }
    assert "JOULEPATH_IMAGE_PYTHONPATH_FILE" not in variables(result)
    assert [one["name"] for one in result["spec"]["initContainers"]] == ["joulepath-trainer"]


def test_an_empty_pythonpath_is_told_to_be_empty() -> None:
    body = pod(container(env=[{"name": "PYTHONPATH"}]))
    result = applied(body, inject(body, INJECTION))
    assert variables(result)["PYTHONPATH"] == "/joulepath/joulepath_trainer/bootstrap"
    assert variables(result)["JOULEPATH_IMAGE_PYTHONPATH_FILE"] == "/dev/null"


def test_a_pythonpath_by_valuefrom_is_left_with_a_warning() -> None:
    source = {"configMapKeyRef": {"name": "c", "key": "k"}}
    body = pod(container(env=[{"name": "PYTHONPATH", "valueFrom": source}]), container("second"))
    outcome = inject(body, INJECTION)
    result = applied(body, outcome)
    assert "pytorch" in outcome.warnings[0]
    assert result["spec"]["containers"][0] == body["spec"]["containers"][0]
    assert result["metadata"]["annotations"] == {ANNOTATION: "second"}
    assert inject(pod(body["spec"]["containers"][0]), INJECTION).patch == ()


def test_a_pythonpath_by_envfrom_is_read_where_it_is_used() -> None:
    body = pod(container(envFrom=[{"configMapRef": {"name": "c"}}]))
    reader = applied(body, inject(body, INJECTION))["spec"]["initContainers"][1]
    assert reader["envFrom"] == [{"configMapRef": {"name": "c"}}]


def test_only_containers_with_gpus_are_injected_each_with_its_own_path() -> None:
    body = pod(container("side", resources={}), container("one"), container("two", image="example.test/other:1"))
    result = applied(body, inject(body, INJECTION))
    assert result["spec"]["containers"][0] == body["spec"]["containers"][0]
    assert [one["name"] for one in result["spec"]["initContainers"]] == [
        "joulepath-trainer",
        "joulepath-pythonpath",
        "joulepath-pythonpath-1",
    ]
    assert result["spec"]["initContainers"][2]["image"] == "example.test/other:1"
    assert result["metadata"]["annotations"][ANNOTATION] == "one,two"
    assert inject(pod(container(resources={})), INJECTION) == Outcome()
    assert inject(pod(container(resources={"limits": {"nvidia.com/gpu": "0"}})), INJECTION) == Outcome()


def test_other_resources_can_stand_for_gpus() -> None:
    body = pod(container(resources={"limits": {"site.example/gpu": 1}}))
    assert inject(body, INJECTION) == Outcome()
    assert inject(body, Injection("i", resources=("nvidia.com/gpu", "site.example/gpu"))).patch


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"os": {"name": "windows"}}, "windows"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "windows"),
        ({"hostUsers": False}, "hostUsers"),
        ({"volumes": [{"name": "joulepath", "emptyDir": {}}]}, "joulepath"),
        ({"initContainers": [{"name": "joulepath-trainer", "image": "i"}]}, "joulepath-trainer"),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/joulepath/"}])]}, "/joulepath"),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/run/joulepath/x"}])]}, "/run/joulepath"),
    ],
)
def test_whatever_would_clash_is_left_alone_with_a_warning(spec: dict[str, Any], word: str) -> None:
    outcome = inject(pod(**spec) if "containers" not in spec else {"metadata": {}, "spec": spec}, INJECTION)
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
        paths = draw(st.lists(st.sampled_from(["/data", "/run", "/joulepathology", "/var/run"]), unique=True))
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
    outcome = inject(body, INJECTION)
    assert body == before, "the pod that was given is not touched"
    after = applied(body, outcome)
    if not outcome.patch:
        assert after == body
        return
    assert inject(after, INJECTION) == Outcome(), "a second time changes nothing"
    ours = ("containers", "initContainers", "volumes")
    rest = {key: value for key, value in after["spec"].items() if key not in ours}
    assert rest == {key: value for key, value in body["spec"].items() if key not in ours}
    own = body["spec"].get("initContainers", [])
    assert after["spec"]["initContainers"][len(after["spec"]["initContainers"]) - len(own) :] == own
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
    names = [one["name"] for one in (*after["spec"]["initContainers"], *after["spec"]["containers"])]
    assert len(names) == len(set(names))
