"""JobPlans as their metadata tells of them, and as they are read."""

from __future__ import annotations

from typing import Any

import pytest

from joulepath_agent.cluster.failures import TooLargeError
from joulepath_agent.cluster.plans import Plans
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import (
    BEGINS_ANNOTATION,
    JOB_UID_LABEL,
    Begins,
    JobPlanSpec,
    Purpose,
    StagePlan,
    Sweep,
    content_hash,
)

JOBS = frozenset(("default", f"job-of-{name}") for name in "abc")


def item(
    name: str, version: int = 1, activate_at: int | None = None, *, told: bool = True, **metadata: Any
) -> dict[str, Any]:
    """A JobPlan of a job of its own, as the API gives it; an older operator hasn't `told` when it begins."""
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid=f"job-of-{name}",
        purpose=Purpose.SWEEP,
        hash="one",
        activate_at=activate_at,
        sweep=Sweep(clocks_mhz=(900,), iterations_per_block=2),
        default_clock_mhz=1410,
    )
    whole = hashed(spec)
    fixed: dict[str, Any] = {"name": name, "namespace": "default", "uid": name, "resourceVersion": str(version)}
    fixed |= {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {JOB_UID_LABEL: f"job-of-{name}"}}
    if told:
        fixed["annotations"] = {BEGINS_ANNOTATION: begins(JobPlanSpec.from_api(whole))}
    return {"metadata": {**fixed, **metadata}, "spec": whole}


def begins(spec: JobPlanSpec) -> str:
    """As the operator annotates it."""
    return Begins.of(spec).model_dump_json(by_alias=True, exclude_none=True)


def hashed(spec: JobPlanSpec, **changes: Any) -> dict[str, Any]:
    """A spec as the operator writes it."""
    body = {**spec.to_api(), **changes}
    return {**body, "hash": content_hash(body)}


def key(name: str) -> tuple[str, str]:
    return "default", f"job-of-{name}"


class Server:
    """Plans that hear of these objects, and how often they read one."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.plans, self.reads = Plans(), list[str]()
        self.list(*items)

    def list(self, *items: dict[str, Any]) -> None:
        """All that there are."""
        self._items = {one["metadata"]["uid"]: one for one in items}
        self.plans.replace([{"metadata": one["metadata"]} for one in items], JOBS)
        self.read()

    def change(self, one: dict[str, Any]) -> None:
        """An event of a watch."""
        self._items[one["metadata"]["uid"]] = one
        self.plans.put({"metadata": one["metadata"]}, JOBS)
        self.read()

    def read(self) -> None:
        """What is to be read."""
        while (heard := self.plans.unread()) is not None:
            self.reads.append(heard.uid)
            self.plans.take(heard, self._items.get(heard.uid))

    def spec(self, name: str) -> JobPlanSpec:
        """What a job plays."""
        told = self.plans.by_job()[key(name)]
        assert isinstance(told, JobPlanSpec)
        return told


def test_a_plan_is_read_again_only_when_its_content_has_changed() -> None:
    server = Server(item("a"), item("b"))
    first = server.plans.by_job()
    server.change(item("b", 2, activate_at=7))
    second = server.plans.by_job()
    assert second[key("a")] is first[key("a")]
    assert server.spec("b").activate_at == 7
    assert server.reads == ["a", "b"], "when it begins is told by its metadata"
    server.list(item("a"), item("b", 2, activate_at=7))
    assert all(server.plans.by_job()[key(name)] is second[key(name)] for name in "ab")
    changed = item("b", 3, activate_at=9)
    changed["spec"] = hashed(JobPlanSpec.from_api(changed["spec"]), defaultClockMHz=900)
    changed["metadata"]["annotations"][BEGINS_ANNOTATION] = begins(JobPlanSpec.from_api(changed["spec"]))
    server.list(changed)
    assert set(server.plans.by_job()) == {key("b")}
    assert (server.spec("b").activate_at, server.spec("b").default_clock_mhz) == (9, 900)
    assert server.reads == ["a", "b", "b"]


@pytest.mark.parametrize("told", ["", "{", '{"hash": "another", "activateAt": 5}', '{"hash": 7}', "[]", "{}"])
def test_a_plan_whose_metadata_do_not_tell_when_it_begins_is_read(told: str) -> None:
    """As one of an older operator's."""
    server = Server(item("a", told=False))
    server.change(item("a", 2, activate_at=7, annotations={BEGINS_ANNOTATION: told}))
    assert server.spec("a").activate_at == 7
    assert server.reads == ["a", "a"]


def test_a_plan_is_known_to_be_superseded_before_the_other_one_is_read() -> None:
    server = Server(item("a"))
    later, other = item("a", 2, activate_at=7, told=False), item("a", 2)
    other["metadata"]["annotations"][BEGINS_ANNOTATION] = '{"hash": "another"}'
    for heard, is_superseded in ((later, False), (other, True), (item("a", uid="another"), True)):
        server.plans.replace([heard], JOBS)
        unread = server.plans.unread()
        assert unread is not None
        assert server.plans.is_superseded(unread) == is_superseded
    server.plans.replace([item("b")], JOBS)
    unread = server.plans.unread()
    assert unread is not None
    assert not server.plans.is_superseded(unread), "nobody knows of any"


def test_plans_that_are_gone_going_or_unreadable_are_none() -> None:
    server = Server(item("a"), item("b"), item("c"))
    server.plans.remove(item("a"))
    server.plans.remove(item("a"))
    server.change(item("b", 2, deletionTimestamp="2026-01-01T00:00:01Z"))
    server.change({**item("c", 2, told=False), "spec": {"purpose": "Sweep"}})
    assert server.plans.by_job() == {}


def test_a_plan_that_is_gone_or_another_one_when_it_is_read_is_none() -> None:
    server = Server()
    server.plans.put({"metadata": item("a")["metadata"]}, JOBS)
    server.read()
    assert server.plans.by_job() == {}
    server.change(item("a"))
    assert server.spec("a").job == "job"


def test_what_is_read_may_be_newer_than_what_was_heard_and_is_not_read_twice() -> None:
    server = Server(item("a", told=False))
    newer = item("a", 3, activate_at=7, told=False)
    server.plans.put({"metadata": item("a", 2, told=False)["metadata"]}, JOBS)
    server.change(newer)
    server.change(newer)
    assert server.spec("a").activate_at == 7
    assert server.reads == ["a", "a"]


def test_the_youngest_plan_of_a_job_is_its_plan_and_no_other_one_is_read() -> None:
    young = item("a", uid="young", activate_at=5, creationTimestamp="2026-01-02T00:00:00Z")
    server = Server(young, item("a", uid="old"))
    assert server.spec("a").activate_at == 5
    assert server.reads == ["young"]
    server.list(item("a", uid="old"))
    assert server.spec("a").activate_at is None


def test_plans_of_other_jobs_and_namespaces_are_not_read() -> None:
    """Whoever may write them there could have each node of a job read them."""
    server = Server(item("x"), item("a", namespace="elsewhere"), item("b", labels={}))
    assert not server.reads
    assert server.plans.by_job() == {}


def test_a_plan_that_is_labelled_as_another_jobs_is_not_played() -> None:
    server = Server(item("a", labels={JOB_UID_LABEL: "job-of-b"}))
    assert server.reads == ["a"]
    assert server.plans.by_job() == {}


def test_more_plans_than_anybody_makes_are_an_error() -> None:
    with pytest.raises(TooLargeError, match="more than 256 JobPlans name jobs of this node; delete those"):
        Server(*(item("a", uid=str(number)) for number in range(257)))


def test_why_a_plan_was_not_read_is_told_until_it_changes() -> None:
    plans, why = Plans(), Reason(Obstacle.PLAN_UNREADABLE, "too large")
    plans.replace([item("a")], JOBS)
    heard = plans.unread()
    assert heard is not None
    plans.take(heard, why)
    assert plans.by_job() == {key("a"): why}
    assert plans.unread() is None
    plans.put(item("a", 2), JOBS)
    assert plans.unread() is not None


def test_a_plan_whose_content_is_not_that_of_its_hash_is_told_and_the_others_are_played(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = item("a")
    changed["spec"]["sweep"]["clocksMHz"] = [600]
    server = Server(changed, item("b"))
    told = server.plans.by_job()[key("a")]
    assert isinstance(told, Reason)
    assert str(told).startswith("HashMismatch: the plan's hash is ")
    assert "JobPlan default/a isn't played: HashMismatch" in caplog.text
    assert server.spec("b").job == "job"
    server.change(item("a", 2))
    assert server.spec("a").job == "job"


def test_a_newer_operator_may_write_fields_that_this_agent_does_not_know() -> None:
    newer = item("a", told=False)
    sweep = {**newer["spec"]["sweep"], "unheardOf": [1.0, {"deep": 2.50}]}
    newer["spec"] = hashed(JobPlanSpec.from_api(newer["spec"]), sweep=sweep, alsoUnheardOf=7.0)
    newer["spec"]["unheardOfFrom"] = 12  # written later, as activateAt is
    assert Server(newer).spec("a").sweep == Sweep(clocks_mhz=(900,), iterations_per_block=2)


def test_a_plan_in_a_string_is_played_as_any(caplog: pytest.LogCaptureFixture) -> None:
    stage = StagePlan(stage=0, order=("F0", "B0") * 12000, clocks_mhz=(900, 0) * 12000, durations_s=(0.1, 0.25) * 12000)
    plain = JobPlanSpec.from_api(item("a")["spec"]).model_copy(update={"purpose": Purpose.ENFORCE, "stages": (stage,)})
    whole = {**item("a", told=False), "spec": hashed(plain.fitting())}
    assert "stages" not in whole["spec"]
    assert Server(whole).spec("a").stages == (stage,)
    whole["spec"] = hashed(plain.fitting(), packedStages="json+zlib:AAAA")
    assert Server(whole).plans.by_job() == {}
    assert "JobPlan default/a can't be read: packed can't be unpacked" in caplog.text
