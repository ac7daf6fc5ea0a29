"""What counts as news of plans, and that a way to the API server that is dead is noticed in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.objects import ApiServer
from joulepath_agent.cluster.policy import PolicyWatch
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import (
    BEGINS_ANNOTATION,
    MOST_PLAN_BYTES,
    Begins,
    EnergyPolicySpec,
    JobPlanSpec,
    Purpose,
    Sweep,
    content_hash,
)
from tests.agent.cluster.api_double import ApiDouble, api_double
from tests.agent.cluster.tied import TiedAgent
from tests.agent.room import wait_until
from tests.json_server import JsonHandler, serving

POLICY = {"metadata": {"name": "default"}, "spec": {"paused": True}}
NONE = EnergyPolicySpec()
JOBS = frozenset({("default", "a")})
METADATA = {
    "uid": "u",
    "namespace": "default",
    "name": "n",
    "resourceVersion": "8",
    "labels": {"joulepath.dev/job-uid": "a"},
}


def sweep(**changes: Any) -> JobPlanSpec:
    """A plan of that job."""
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="a",
        purpose=Purpose.SWEEP,
        hash="",
        sweep=Sweep(clocks_mhz=(900,), iterations_per_block=2),
        default_clock_mhz=1410,
    ).model_copy(update=changes)
    return spec.model_copy(update={"hash": content_hash(spec)})


@dataclass
class Renewing(TiedAgent):
    """An agent for whom plans that are told renew a time to live."""

    life: TimeToLive = field(default_factory=lambda: TimeToLive(0.0))

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason], jobs: Collection[JobKey]) -> None:
        """See Tied."""
        self.life.renew(time.monotonic())


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    with api_double() as running:
        yield running


@pytest.fixture
def news(double: ApiDouble) -> Iterator[list[Any]]:
    """The plans that an agent was told, whose plans live for four seconds."""
    agent = TiedAgent(JOBS)
    tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=4.0)
    tied.run(agent)
    yield agent.plans
    tied.stop()


def test_lists_without_any_change_are_news(double: ApiDouble, news: list[Any]) -> None:
    wait_until(lambda: len(news) >= 3, "lists come again and again")
    assert {asked["timeoutSeconds"] for asked in double.watches} == {"1"}, "four in a time to live"


def test_a_bookmark_is_no_news_and_ends_no_watch(double: ApiDouble) -> None:
    double.told = [
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}},
        {"type": "ADDED", "object": {"metadata": METADATA}},
    ]
    agent = TiedAgent(JOBS)
    tied = NodeApi(double.connection, "node", "default")
    tied.run(agent)
    try:
        wait_until(lambda: len(agent.plans) > 1, "what comes after it is heard")
        assert len(agent.plans) == 2, "of a list, and of a plan"
        assert [asked["allowWatchBookmarks"] for asked in double.watches] == ["true"]
    finally:
        tied.stop()


def test_a_watch_that_is_a_black_hole_is_left_for_a_list(double: ApiDouble, news: list[Any]) -> None:
    double.watches_hang = True
    wait_until(lambda: len(double.watches) >= 2, "the watch is opened again")
    assert len(news) >= 2


def test_plans_of_the_jobs_that_are_here_are_asked_for_and_of_one_that_comes_at_once(double: ApiDouble) -> None:
    """Within the watch, which would last for a minute; whose pod says that its owner's UID is no UID spoils nothing."""
    agent = TiedAgent(frozenset({("default", "a"), ("default", "in (b)")}))
    tied = NodeApi(double.connection, "node", "default")
    tied.run(agent)
    try:
        wait_until(lambda: bool(double.watches), "plans are watched")
        agent.jobs |= {("team", "c")}
        wait_until(lambda: len(double.watches) > 1, "they are watched anew")
    finally:
        tied.stop()
    selectors = [asked["labelSelector"] for asked in double.watches]
    assert selectors == ["joulepath.dev/job-uid in (a)", "joulepath.dev/job-uid in (a,c)"]
    assert agent.about == [{("default", "a")}, {("default", "a"), ("team", "c")}]
    assert double.selectors == {*selectors}


def test_where_there_is_no_rank_nothing_is_asked_for_nor_told(double: ApiDouble) -> None:
    agent = TiedAgent()
    tied = NodeApi(double.connection, "node", "default")
    tied.run(agent)
    wait_until(lambda: double.beats > 0 and agent.forgets > 1, "it lives")
    tied.stop()
    assert not agent.plans
    assert double.lists == 0


def test_plans_that_are_known_are_not_sent_again(double: ApiDouble, news: list[Any]) -> None:
    hashed = sweep()
    double.plans = [{"metadata": METADATA, "spec": hashed.to_api()}]
    wait_until(lambda: bool(news and news[-1]), "the plan is read")
    assert news[-1] == {("default", "a"): hashed}
    before = len(news)
    wait_until(lambda: len(news) > before + 1, "there is further news")
    assert double.reads == [{"fieldSelector": "metadata.name=n", "resourceVersion": "8"}]
    double.plans = []
    wait_until(lambda: not news[-1], "it is gone")


def test_a_plan_is_over_as_soon_as_there_is_another_one_also_where_that_cannot_be_read(
    double: ApiDouble, news: list[Any]
) -> None:
    double.plans = [{"metadata": METADATA, "spec": sweep().to_api()}]
    wait_until(lambda: bool(news and news[-1]), "the plan is read")
    double.reads_fail, other = True, sweep(default_clock_mhz=1200)
    annotations = {BEGINS_ANNOTATION: Begins.of(other).model_dump_json(by_alias=True)}
    metadata = METADATA | {"resourceVersion": "9", "annotations": annotations}
    double.plans = [{"metadata": metadata, "spec": other.to_api()}]
    wait_until(lambda: not news[-1], "it is over")
    double.reads_fail = False
    wait_until(lambda: bool(news[-1]), "the other one is read")
    assert news[-1] == {("default", "a"): other}


def test_a_plan_that_is_too_large_is_not_read_and_the_agent_says_why(double: ApiDouble, news: list[Any]) -> None:
    double.plans = [{"metadata": METADATA, "spec": {"energyPlan": "x" * 3 * MOST_PLAN_BYTES}}]
    wait_until(lambda: bool(news and news[-1]), "it is told")
    (why,) = news[-1].values()
    assert str(why).startswith("PlanUnreadable: the answer to GET ")
    assert str(why).endswith(f"jobplans has more than {2 * MOST_PLAN_BYTES} bytes")


def test_plans_by_the_hundred_are_not_read(double: ApiDouble, news: list[Any]) -> None:
    """Nor is a withdrawal told: the agent doesn't know it."""
    metadata = [METADATA | {"uid": f"u{number}", "name": f"n{number}"} for number in range(257)]
    double.plans = [{"metadata": one, "spec": {}} for one in metadata]
    lists = double.lists
    wait_until(lambda: double.lists > lists, "they are listed")
    told = len(news)
    wait_until(lambda: double.lists > lists + 2, "and listed again")
    assert not double.reads
    assert len(news) == told
    double.plans = double.plans[:256]
    wait_until(lambda: len(news) > told, "those are as many as are heard of")
    assert len(double.reads) == 1, "of a job the youngest alone"


def test_a_lease_that_is_renewed_is_no_news_of_plans(double: ApiDouble) -> None:
    life = TimeToLive(2.0)
    life.renew(time.monotonic())
    tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=2.0)
    double.lists_fail = True
    tied.run(Renewing(JOBS, life=life))
    try:
        wait_until(lambda: double.beats > 0 and double.lists >= 2, "the lease is renewed, and lists fail")
        wait_until(lambda: bool(life.expired(time.monotonic())), "the plans have expired")
        double.lists_fail = False
        wait_until(lambda: not life.expired(time.monotonic()), "there is news again")
    finally:
        tied.stop()


@pytest.mark.parametrize("lives_s", [60.0, 300.0, 900.0, 86400.0])
def test_a_dead_connection_and_a_failed_list_fit_into_every_time_to_live(lives_s: float) -> None:
    with api_double() as double:
        tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=lives_s)
        tied.run(TiedAgent(JOBS))
        wait_until(lambda: bool(double.watches), "a watch is opened")
        wait_until(lambda: bool(double.policy_watches), "a watch of the policy as well")
        tied.stop()
    watch_s = float(double.watches[0]["timeoutSeconds"])
    late_s, backoff_s, list_s = 15.0, 15.0, 13.05
    assert watch_s + late_s + backoff_s + list_s < lives_s
    silent_s, policy_s = 60.0, float(double.policy_watches[0]["timeoutSeconds"])
    assert min(policy_s, silent_s) + late_s + backoff_s + list_s < lives_s
    assert policy_s <= max(0.5 * lives_s, silent_s), "a server that knows no better than its signs of life is left"


def test_an_api_server_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_says_by_all_threads() -> None:
    asked = list[str]()

    class Busy(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0].rpartition("/")[2])
            self.send_response(429)
            self.send_header("Retry-After", "30")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

    with serving(Busy) as url:
        tied = NodeApi(ApiServer(url), "node", "default")
        tied.run(TiedAgent(JOBS))
        wait_until(lambda: len(asked) == 4, "plans, policy, report and lease are asked for")
        time.sleep(3.0)  # in which each would have come again twice
        tied.stop()
    assert sorted(asked) == ["energypolicies", "jobplans", "joulepath-agent-node", "status"]


@contextmanager
def hearing(double: ApiDouble) -> Iterator[TiedAgent]:
    """An agent without ranks, which hears of the policy all the same."""
    agent = TiedAgent()
    tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=4.0)
    tied.run(agent)
    try:
        yield agent
    finally:
        tied.stop()


def test_a_policy_is_heard_by_a_list_and_by_a_watch_and_a_sign_of_life_of_that_is_news(double: ApiDouble) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
    other = {"type": "DELETED", "object": {"metadata": {"name": "other"}}}
    double.policy_events = [bookmark, {"type": "ADDED", "object": POLICY}, other, {"type": "DELETED", "object": POLICY}]
    with hearing(double) as agent:
        wait_until(lambda: len(agent.policies) >= 5, "all of it is told")
    paused = EnergyPolicySpec(paused=True)
    assert agent.policies[:5] == [NONE, NONE, paused, paused, NONE]
    assert double.policy_watches[0]["allowWatchBookmarks"] == "true"


def test_a_policy_that_can_not_be_asked_for_is_no_news_of_it(double: ApiDouble) -> None:
    double.policy_lists_fail = True
    with hearing(double) as agent:
        wait_until(lambda: double.policy_lists >= 2, "it is asked for twice")
        assert not agent.policies
        double.policy_lists_fail = False
        wait_until(lambda: bool(agent.policies), "it is told")


def test_a_cluster_that_does_not_know_the_kind_has_no_policy_and_one_that_comes_to_know_it_has(
    double: ApiDouble,
) -> None:
    double.policies = None
    with hearing(double) as agent:
        wait_until(lambda: bool(agent.policies), "it is told that there is none")
        double.policies = [POLICY]
        wait_until(lambda: agent.policies[-1].paused, "it is told of one")
        assert NONE in agent.policies


def test_a_kind_that_is_unknown_for_a_moment_is_no_word_that_nothing_is_paused(double: ApiDouble) -> None:
    """An agent that begins while a definition is being established would have its clocks play plans in a cluster that
    is paused."""
    double.policy_lists_unknown, double.policies = 1, [POLICY]
    with hearing(double) as agent:
        wait_until(lambda: bool(agent.policies), "it is told of one")
        assert double.policy_lists >= 2
    assert all(policy.paused for policy in agent.policies)


def test_it_is_unknown_twice_only_if_nothing_else_was_said_between(double: ApiDouble) -> None:
    hurry = threading.Event()
    hurry.set()
    watch = PolicyWatch(double.connection, ("apis", "joulepath.dev", "v1alpha1"), 1.0, 1.0, hurry)
    double.policies, told = None, list[EnergyPolicySpec]()
    watch.hear(told.append)
    double.policy_lists_fail = True
    with pytest.raises(OSError, match="503"):
        watch.hear(told.append)
    double.policy_lists_fail = False
    watch.hear(told.append)
    assert not told
    watch.hear(told.append)
    assert told == [NONE]


def test_an_api_server_that_forgets_the_kind_ends_no_pause(double: ApiDouble) -> None:
    double.policies = [POLICY]
    with hearing(double) as agent:
        wait_until(lambda: bool(agent.policies), "it is told")
        double.policies = None
        asked, told = double.policy_lists, len(agent.policies)
        wait_until(lambda: double.policy_lists >= asked + 3, "it is asked for again")
        assert all(policy.paused for policy in agent.policies)
        assert len(agent.policies) <= told + 1, "that is no news"


def test_a_policy_of_a_newer_version_holds_as_far_as_it_is_known_and_pauses_where_it_is_not(double: ApiDouble) -> None:
    newer = {"maxSlowdownPercent": 3, "somethingNew": {"of": "tomorrow"}}
    double.policies = [{"metadata": {"name": "default"}, "spec": newer}]
    double.policy_events = [
        {"type": "MODIFIED", "object": {"metadata": {"name": "default"}, "spec": {"maxSlowdownPercent": "a little"}}}
    ]
    with hearing(double) as agent:
        wait_until(lambda: len(agent.policies) >= 2, "it is told")
    assert agent.policies[0] == EnergyPolicySpec(max_slowdown_percent=3)
    assert agent.policies[1].paused
    assert "it can't be read here, spec.maxSlowdownPercent" in agent.policies[1].pause_reason
