"""When injection stops in a namespace, for how long, and when it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from joulepath_operator.facts.admission import Denial, Stop, read_stops
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.breaker import failure
from joulepath_operator.injection.breaker import next_stop as decide
from joulepath_operator.injection.init_container import READER

IMAGE = "example.test/user:1"
FORBIDDEN = "pods \"gpt3-master-0\" is forbidden: ValidatingAdmissionPolicy 'no-host' denied request: no hostPath"
START_ERROR = {"terminated": {"exitCode": 128, "reason": "StartError", "finishedAt": "2026-01-01T00:59:00Z"}}
MISSING = {"waiting": {"reason": "RunContainerError", "message": "busybox: no such file or directory"}}


def at(minute: int) -> str:
    return f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00Z"


NOW = at(60)


def next_stop(
    old: Stop | None, pods: list[dict[str, Any]], now: str, *agents: str, denials: tuple[Denial, ...] = ()
) -> Stop | None:
    """With agents that are ready on these nodes; of those that fail the node has one unless it is said otherwise."""
    return decide(old, pods, now, lambda node: node in (agents or ("n",)), denials)


def denied(minute: int, why: str = FORBIDDEN) -> tuple[Denial]:
    return (Denial("gpt3", at(minute), why),)


def passed(minute: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": 0, "finishedAt": at(minute)}}


def failed(minute: int) -> dict[str, Any]:
    return {"terminated": START_ERROR["terminated"] | {"finishedAt": at(minute)}}


def pod(
    state: dict[str, Any], created: int = 50, name: str = READER, restarts: int = 0, image: str = IMAGE, **status: Any
) -> dict[str, Any]:
    told = {"name": name, "state": state, "restartCount": restarts}
    return {
        "metadata": {"name": "p", "creationTimestamp": at(created), "annotations": {INJECTED_ANNOTATION: "pytorch"}},
        "spec": {
            "initContainers": [{"name": READER, "image": image}],
            "containers": [{"name": "pytorch", "image": IMAGE}],
            "nodeName": "n",
        },
        "status": {"phase": "Pending", "initContainerStatuses": [told], **status},
    }


@pytest.mark.parametrize(
    "reason",
    ["CreateContainerError", "RunContainerError", "StartError", "CrashLoopBackOff"],
)
def test_what_keeps_our_init_container_from_being_begun_is_a_failure(reason: str) -> None:
    assert failure(pod({"waiting": {"reason": reason}})) == f"pod p on node n: {reason}"


def test_one_that_ended_and_did_not_pass_has_failed() -> None:
    assert failure(pod(START_ERROR)) == "pod p on node n: StartError, exit code 128"


@pytest.mark.parametrize(
    "one",
    [
        pod({"waiting": {"reason": "PodInitializing"}}),
        pod({"waiting": {"reason": "ContainerCreating"}}),
        pod({"running": {}}),
        pod({}),
        pod(passed(50)),
        pod(MISSING, name="the-users-own"),
        pod(START_ERROR, reason="Evicted"),
        pod({"terminated": {"exitCode": 255, "reason": "Unknown", "finishedAt": at(59)}}),
        pod({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": at(59)}}),
        {**pod(MISSING), "metadata": {"name": "p", "creationTimestamp": at(50)}},
        {**pod(START_ERROR), "metadata": pod(START_ERROR)["metadata"] | {"deletionTimestamp": NOW}},
    ],
    ids=[
        *("next", "begins", "runs", "unknown", "passed", "the user's", "evicted"),
        *("rebooted", "forgotten", "not injected", "deleted"),
    ],
)
def test_what_is_none_of_ours_or_no_failure_is_none(one: dict[str, Any]) -> None:
    assert failure(one) == ""


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"],
)
def test_an_image_that_the_training_waits_for_as_well_is_not_ours_to_answer_for(reason: str) -> None:
    assert failure(pod({"waiting": {"reason": reason}})) == ""
    assert reason in failure(pod({"waiting": {"reason": reason}}, image="mirror.test/user:1")), "somebody changed one"


def test_a_missing_configmap_or_a_root_image_that_the_training_has_as_well_is_not_ours_to_answer_for() -> None:
    one = pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "hyper" not found'}})
    (training,), (ours,) = one["spec"]["containers"], one["spec"]["initContainers"]
    training |= {"envFrom": [{"configMapRef": {"name": "hyper"}}], "securityContext": {"runAsNonRoot": True}}
    assert "hyper" in failure(one), "ours alone has it so"
    ours |= {"envFrom": training["envFrom"], "securityContext": training["securityContext"] | {"privileged": False}}
    assert failure(one) == ""


def test_a_pod_that_cannot_start_stops_injection_for_a_while() -> None:
    why = "pod p on node n: RunContainerError: busybox: no such file or directory"
    assert next_stop(None, [pod(MISSING), pod(passed(55))], NOW) == Stop(NOW, at(70), 600, why)
    assert next_stop(None, [pod(passed(55))], NOW) is None


def test_a_pod_that_failed_just_now_and_is_over_stops_it_and_one_of_long_ago_does_not() -> None:
    stop = next_stop(None, [pod(failed(59))], NOW)
    assert stop is not None
    assert (stop.since, stop.until) == (NOW, at(70))
    assert next_stop(None, [pod(failed(45))], NOW) is None


HOLDS = Stop(at(50), at(60), 600, "pod p on node n: StartError, exit code 128")


def test_within_that_while_nothing_is_written_anew() -> None:
    for state in (MISSING, failed(55)):
        assert next_stop(HOLDS, [pod(state)], at(59)) == HOLDS


@pytest.mark.parametrize("pods", [[pod(MISSING)], [pod(failed(61), created=60)]], ids=["held up still", "the try"])
def test_who_fails_after_that_while_doubles_the_next_up_to_a_day(pods: list[dict[str, Any]]) -> None:
    stop = next_stop(HOLDS, pods, at(62))
    assert stop is not None
    assert (stop.since, stop.until, stop.pause_s) == (HOLDS.since, at(82), 1200)
    long = next_stop(replace(HOLDS, pause_s=86400), pods, at(62))
    assert long is not None
    assert long.pause_s == 86400


def test_a_failure_from_before_the_try_says_nothing_of_it() -> None:
    assert next_stop(HOLDS, [pod(failed(51))], at(62)) == HOLDS


def test_it_is_over_once_the_pod_that_was_let_try_has_passed() -> None:
    assert next_stop(HOLDS, [pod(passed(61), created=60)], at(62)) == replace(HOLDS, over_at=at(62))


def test_it_is_over_once_a_pod_that_had_failed_passes_as_where_an_agent_came() -> None:
    assert next_stop(HOLDS, [pod(passed(55), created=45, restarts=2)], at(56)) == replace(HOLDS, over_at=at(56))


def test_it_is_not_over_while_a_pod_is_held_up() -> None:
    assert next_stop(HOLDS, [pod(passed(55), restarts=2), pod(MISSING)], at(56)) == HOLDS


@pytest.mark.parametrize(
    "one",
    [pod(passed(55), created=50), pod(passed(40), created=30, restarts=1)],
    ids=["of the gang, on a sound node", "long before"],
)
def test_pods_that_passed_and_were_no_try_end_nothing(one: dict[str, Any]) -> None:
    assert next_stop(HOLDS, [one], at(56)) == HOLDS


def test_it_is_over_once_the_node_that_had_no_agent_has_one() -> None:
    stop = next_stop(None, [pod(MISSING)], NOW, "another")
    assert stop is not None
    assert stop.node == "n"
    assert next_stop(stop, [], at(61), "another") == stop
    assert next_stop(stop, [], at(61), "n") == replace(stop, over_at=at(61))
    assert next_stop(stop, [pod(MISSING)], at(61), "n") == stop, "it goes on by itself, when the kubelet tries again"
    with_agent = next_stop(None, [pod(MISSING)], NOW)
    assert with_agent is not None
    assert with_agent.node == "", "that isn't what it lacks"
    assert next_stop(with_agent, [], at(61)) == with_agent


def test_where_whoever_was_let_try_was_never_made_another_may() -> None:
    assert next_stop(HOLDS, [], at(69)) == HOLDS
    assert next_stop(HOLDS, [], at(70)) == replace(HOLDS, until=at(70), tried_from=HOLDS.until)


def test_a_try_whose_image_pulls_for_longer_than_the_pause_ends_it_once_it_has_passed() -> None:
    stop: Stop | None = HOLDS
    for minute in range(60, 95):
        stop = next_stop(stop, [pod({"waiting": {"reason": "PodInitializing"}}, created=60)], at(minute))
    assert stop is not None
    assert stop.holds
    assert stop.until == at(90)
    assert next_stop(stop, [pod(passed(95), created=60)], at(95)) == replace(stop, over_at=at(95))
    longer = next_stop(stop, [pod(failed(96), created=91)], at(96))
    assert longer is not None
    assert next_stop(longer, [pod(passed(97), created=60)], at(97)) == longer, "another try has failed since"


def test_a_stop_that_no_pod_has_to_do_with_is_dropped_after_days() -> None:
    stop: Stop | None = HOLDS
    waiting = pod({"waiting": {"reason": "PodInitializing"}})
    for day, pods in ((2, []), (3, []), (5, [waiting])):
        stop = next_stop(stop, pods, f"2026-01-0{day}T00:00:00Z")
        assert stop is not None
        assert stop.holds
    assert next_stop(stop, [], "2026-01-05T00:00:00Z") is None


def test_a_node_whose_clock_is_ahead_doubles_no_pause_before_its_end() -> None:
    ahead = pod(failed(240))
    stop = next_stop(None, [ahead], NOW)
    assert stop is not None
    for minute in range(61, 70):
        assert next_stop(stop, [ahead], at(minute)) == stop


def test_one_that_is_over_is_remembered_for_a_month_and_begins_anew_with_a_new_failure() -> None:
    over = replace(HOLDS, pause_s=86400, over_at=at(55))
    assert next_stop(over, [pod(failed(54))], NOW) == over, "that was before"
    assert next_stop(over, [], "2026-01-30T00:00:00Z") == over
    assert next_stop(over, [], "2026-02-01T00:00:00Z") is None
    anew = next_stop(over, [pod(failed(58))], NOW)
    assert anew is not None
    assert (anew.since, anew.pause_s, anew.holds) == (NOW, 600, True)


def test_a_message_of_any_length_leaves_room_for_others() -> None:
    assert len(failure(pod({"waiting": {"reason": "CreateContainerError", "message": "x" * 10_000}}))) <= 160


def test_stops_are_written_and_read_and_what_cannot_be_read_is_none() -> None:
    sound = json.loads(HOLDS.written())
    wrong = (
        {"until": 3},
        {"since": ""},
        {"over_at": "soon"},
        {"until": "2026-01-01T00:00:00"},
        {"pause_s": "1"},
        {"node": 1},
    )
    written = {str(index): json.dumps(sound | one) for index, one in enumerate(wrong)}
    written |= {"team": HOLDS.written(), "a": "", "b": "[]", "c": "{}"}
    assert read_stops(written) == {"team": HOLDS}


@pytest.mark.parametrize(
    "by_hand",
    [
        {"until": "9999-12-31T23:59:59Z"},
        {"since": "9999-12-31T23:59:59Z"},
        {"over_at": "9999-12-31T23:59:59Z"},
        {"tried_from": "9999-12-31T23:59:59Z"},
        {"pause_s": 10**12},
        {"pause_s": -(10**12)},
    ],
)
def test_whatever_somebody_writes_down_can_be_reckoned_with(by_hand: dict[str, Any]) -> None:
    written = {"team": json.dumps(json.loads(HOLDS.written()) | by_hand), "deep": "[" * 100_000}
    stop = read_stops(written)["team"]
    for pods in ([], [pod(MISSING)], [pod(passed(61), created=60)]):
        next_stop(stop, pods, at(80))
    assert isinstance(stop.covers(at(55), True), bool)


def test_letters_beyond_ascii_take_no_six_bytes_each() -> None:
    assert len(replace(HOLDS, why="\u00e9" * 160).written().encode()) < 600


DENIED = Stop(NOW, at(70), 600, f"a pod of gpt3 was refused: {FORBIDDEN}"[:160], denied=True)
"""The stop by the first of them."""


def test_a_pod_that_is_refused_stops_all_injection_and_not_the_init_container_alone() -> None:
    assert next_stop(None, [], NOW, denials=denied(60)) == DENIED
    assert DENIED.hinders(starts_first=False)
    assert not HOLDS.hinders(starts_first=False)
    assert next_stop(None, [], NOW, denials=denied(45)) is None, "that was long ago"
    assert read_stops({"team": DENIED.written()}) == {"team": DENIED}
    assert read_stops({"team": DENIED.written().replace("true", "1")}) == {}


@pytest.mark.parametrize(
    "why",
    [
        'pods "p" is forbidden: exceeded quota: team, requested: pods=1, used: pods=8, limited: pods=8',
        'pods "p" already exists',
        'pods "p" is forbidden: error looking up service account team/s: serviceaccount "s" not found',
        'pods is forbidden: User "operator" cannot create resource "pods" in API group "" in the namespace "team"',
        'pods "p" is forbidden: unable to create new content in namespace team because it is being terminated',
        'Internal error occurred: failed calling webhook "w": connection refused',
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
    ],
)
def test_what_refuses_a_pod_without_us_as_well_stops_nothing(why: str) -> None:
    assert next_stop(None, [], NOW, denials=denied(60, why)) is None


@pytest.mark.parametrize(
    "why",
    [
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes',
        'admission webhook "policies" denied the request: hostPath',
        'pods "p" is forbidden: unable to validate against any security context constraint',
        'Pod "p" is invalid: spec.volumes[4]',
        "etcdserver: request is too large",
    ],
)
def test_whatever_else_refuses_one_may_be_for_what_is_added(why: str) -> None:
    stop = next_stop(None, [], NOW, denials=denied(60, why))
    assert stop is not None
    assert stop.why == f"a pod of gpt3 was refused: {why}"[:160]


def test_it_is_over_once_a_pod_that_was_let_try_is_there_with_or_without_init_container() -> None:
    assert next_stop(DENIED, [pod({}, created=61)], at(71), denials=denied(60)) == DENIED, "it was on its way before"
    for one in (pod({}, created=70), pod({}, created=70, name="the-users-own")):
        assert next_stop(DENIED, [one], at(71), denials=denied(60)) == replace(DENIED, over_at=at(71))
    left_alone = pod({}, created=70)
    del left_alone["metadata"]["annotations"]
    assert next_stop(DENIED, [left_alone], at(71), denials=denied(60)) == DENIED


def test_one_that_is_refused_again_after_that_while_doubles_the_next() -> None:
    assert next_stop(DENIED, [], at(66), denials=denied(65)) == DENIED
    stop = next_stop(DENIED, [], at(72), denials=denied(71))
    assert stop is not None
    assert (stop.since, stop.until, stop.pause_s, stop.denied) == (NOW, at(92), 1200, True)


def test_pods_that_are_refused_while_the_init_container_is_left_out_stop_the_rest_as_well() -> None:
    stop = next_stop(HOLDS, [], at(56), denials=denied(55))
    assert stop is not None
    assert (stop.since, stop.until, stop.denied) == (HOLDS.since, at(66), True)
    assert next_stop(HOLDS, [], at(56), denials=denied(49)) == HOLDS, "those were before it"
