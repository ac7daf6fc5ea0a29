"""The agent's ties to a real API server, with the kinds under a group of the test's own."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.objects import ApiServer
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import (
    JOB_UID_LABEL,
    Coordinates,
    EnergyPolicySpec,
    JobPlanSpec,
    JobReport,
    Measurements,
    NodeReportStatus,
    Purpose,
    RankReport,
    Sweep,
    content_hash,
    joined,
)
from joulepath_crds.__main__ import documents
from real_cluster import Cluster as RealCluster
from tests.agent.cluster.real_api import api_server
from tests.agent.cluster.tied import TiedAgent
from tests.agent.room import wait_until

pytestmark = pytest.mark.cluster


@dataclass
class Ties:
    """An agent's ties, and the agent."""

    cluster: RealCluster
    group: str
    namespace: str
    node: str
    api: ApiServer
    agent: TiedAgent

    def get(self, *arguments: str) -> dict[str, Any] | None:
        """An object as kubectl gives it; None where there is none."""
        text = self.cluster.kubectl("get", "--ignore-not-found", "-o", "json", *arguments)
        return dict(json.loads(text)) if text.strip() else None

    def apply(self, name: str, spec: Mapping[str, Any]) -> None:
        """Applies a JobPlan."""
        metadata = {"name": name, "namespace": self.namespace, "labels": {JOB_UID_LABEL: spec["jobUID"]}}
        body = {"apiVersion": f"{self.group}/v1alpha1", "kind": "JobPlan", "metadata": metadata, "spec": spec}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    @property
    def plans(self) -> Sequence[Mapping[JobKey, JobPlanSpec | Reason]]:
        """As the agent was told them."""
        return self.agent.plans

    def known(self) -> Mapping[JobKey, JobPlanSpec | Reason]:
        """The plans as the agent knows them."""
        return self.plans[-1] if self.plans else {}

    def start(self, plans_live_s: float = DEFAULT_TIME_TO_LIVE_S) -> NodeApi:
        """Ties the agent."""
        tied = NodeApi(self.api, self.node, self.namespace, self.group, plans_live_s)
        tied.run(self.agent)
        return tied


@pytest.fixture
def ties(cluster: RealCluster) -> Iterator[Ties]:
    mark = uuid4().hex[:8]
    group, namespace = f"t{mark}.joulepath.test", f"agent-{mark}"
    text = "\n---\n".join(one.replace("joulepath.dev", group) for one in documents().values())
    kinds = [f"crd/{name.removesuffix('.yaml')}.{group}" for name in documents()]
    node = cluster.nodes[0].name
    try:
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *kinds)
        agent = TiedAgent(frozenset({(namespace, "job-uid")}))
        yield Ties(cluster, group, namespace, node, api_server(cluster.kubeconfig), agent)
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", *kinds, f"namespace/{namespace}")


@pytest.fixture
def tied(ties: Ties) -> Iterator[Ties]:
    running = ties.start()
    yield ties
    running.stop()


def plan(**changes: Any) -> dict[str, Any]:
    """A sweep, staged."""
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="job-uid",
        purpose=Purpose.SWEEP,
        hash="one",
        sweep=Sweep(clocks_mhz=(900,), iterations_per_block=2),
        default_clock_mhz=1410,
    )
    body = {**spec.to_api(), **changes}
    return {**body, "hash": content_hash(body)}


def begin(ties: Ties) -> int | None:
    """From which iteration on the plan is in force."""
    told = ties.known()[ties.namespace, "job-uid"]
    assert isinstance(told, JobPlanSpec)
    return told.activate_at


def test_plans_come_change_and_go(tied: Ties) -> None:
    key = (tied.namespace, "job-uid")
    wait_until(lambda: bool(tied.plans), "the first list is handed on")
    assert tied.known() == {}
    tied.apply("a", plan())
    wait_until(lambda: key in tied.known(), "the plan arrives")
    assert begin(tied) is None
    tied.apply("a", plan(activateAt=7))
    wait_until(lambda: begin(tied) == 7, "the activation arrives")
    tied.cluster.kubectl("delete", f"jobplans.{tied.group}", "a", "-n", tied.namespace)
    wait_until(lambda: tied.known() == {}, "the withdrawal arrives")


def test_the_plan_of_a_job_that_is_elsewhere_is_never_sent_here(tied: Ties) -> None:
    tied.apply("a", plan(jobUID="elsewhere"))
    tied.apply("b", plan())
    wait_until(lambda: bool(tied.known()), "a plan arrives")
    assert all("elsewhere" not in {uid for _, uid in plans} for plans in tied.plans)


def test_the_report_is_created_owned_by_the_node_and_written_on_change_only(tied: Ties) -> None:
    resource = f"nodereport.{tied.group}/{tied.node}"

    def version() -> str | None:
        stored = tied.get(resource)
        written = stored is not None and stored.get("status", {}).get("injector") == tied.agent.status.injector
        return str(stored["metadata"]["resourceVersion"]) if stored is not None and written else None

    wait_until(lambda: tied.get(resource) is not None, "the report is created")
    tied.agent.status = NodeReportStatus(injector="Ready")
    wait_until(lambda: version() is not None, "the change is written")
    stored, node = tied.get(resource), tied.get(f"node/{tied.node}")
    assert stored is not None
    assert node is not None
    (owner,) = stored["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", tied.node, node["metadata"]["uid"])
    unchanged = version()
    tied.agent.status = NodeReportStatus(injector="Ready")
    name = f"lease/joulepath-agent-{tied.node}"
    wait_until(lambda: tied.get(name, "-n", tied.namespace) is not None, "the lease is there")
    assert version() == unchanged


def test_what_ranks_do_and_what_they_measured_come_apart_and_are_all_of_it(tied: Ties) -> None:
    line = {"instruction": "F0", "stage": 0, "begin_s": 0.1, "end_s": 0.2}
    identity = {"rank": 0, "pod": "pod", "pod_uid": "uid", "gpu_uuid": "GPU-1", "coordinates": Coordinates()}
    shape = {"stages": (0,), "stage_count": 1, "schedule": "1F1B", "microbatches": 1, "iteration": 7}
    rank = RankReport.model_validate(identity | shape | {"order": ("F0",), "timeline": (line,)})
    job = JobReport(job_uid="u", namespace="n", job="j", world_size=1, ranks=(rank,))
    report = tied.agent.status = NodeReportStatus(jobs=(job,))

    def told(kind: str) -> dict[str, Any]:
        stored = tied.get(f"{kind}.{tied.group}/{tied.node}")
        return {} if stored is None else dict(stored.get("status", {}))

    wait_until(lambda: bool(told("nodestate").get("jobs")), "what ranks do is written")
    wait_until(lambda: len(told("nodemeasurement").get("packed", "")) > 100, "what they measured is written")
    state, packed = told("nodestate"), told("nodemeasurement")["packed"]
    assert not {"order", "timeline"} & state["jobs"][0]["ranks"][0].keys()
    assert not told("nodereport").get("jobs")
    assert joined(report, NodeReportStatus.from_api(state).jobs, Measurements.unpacked(packed)) == report


def test_a_kind_that_is_gone_withdraws_its_plans_and_one_that_comes_back_is_watched(tied: Ties) -> None:
    tied.apply("a", plan())
    wait_until(lambda: bool(tied.known()), "the plan arrives")
    tied.cluster.kubectl("delete", f"crd/jobplans.{tied.group}")
    wait_until(lambda: tied.known() == {}, "the plans are withdrawn")
    crd = documents()["jobplans.yaml"].replace("joulepath.dev", tied.group)
    tied.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=crd)
    tied.cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/jobplans.{tied.group}")
    tied.apply("b", plan())
    wait_until(lambda: bool(tied.known()), "plans arrive again")


class Relay:
    """A way to the API server that can be cut."""

    def __init__(self, server: str) -> None:
        url = urlsplit(server)
        self._target = (url.hostname or "", url.port or 443)
        self._open: list[socket.socket] = []
        self._threads = list[threading.Thread]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._passing = True
        self._start(self._serve)

    @property
    def used(self) -> bool:
        """Whether anybody has come this way."""
        return bool(self._open)

    def cut(self) -> None:
        """Ends every connection and takes no more."""
        self._passing = False
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Takes connections again."""
        self._passing = True

    def close(self) -> None:
        """Ends it."""
        self._listener.shutdown(socket.SHUT_RDWR)  # accept() doesn't return by close()
        serves, *_ = self._threads
        serves.join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._open):
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client_side, _ = self._listener.accept()
                if not self._passing:
                    client_side.close()
                    continue
                server_side = socket.create_connection(self._target)
                self._open += [client_side, server_side]
                for source, sink in ((client_side, server_side), (server_side, client_side)):
                    self._start(_pump, source, sink)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def relayed(ties: Ties) -> Relay:
    """From now on the way to the API server."""
    relay = Relay(ties.api.url)
    ties.api = api_server(ties.cluster.kubeconfig, url=f"https://127.0.0.1:{relay.port}")
    return relay


def test_an_api_server_that_is_out_of_reach_withdraws_nothing_and_is_found_again(ties: Ties) -> None:
    relay = relayed(ties)
    ties.apply("a", plan())
    key = (ties.namespace, "job-uid")
    running = ties.start()
    try:
        wait_until(lambda: key in ties.known(), "the plan arrives")
        assert relay.used
        relay.cut()
        ties.agent.status = NodeReportStatus(agent_version="cut off")
        ties.apply("a", plan(activateAt=7))
        relay.mend()
        wait_until(lambda: begin(ties) == 7, "the activation arrives after all")
        wait_until(lambda: _version(ties) == "cut off", "the report is written after all")
        first = next(i for i, plans in enumerate(ties.plans) if plans)
        assert all(ties.plans[first:])
    finally:
        running.stop()
        relay.close()


def test_news_come_while_nothing_changes_and_stop_with_the_api_server(ties: Ties) -> None:
    relay = relayed(ties)
    running = ties.start(plans_live_s=8.0)
    try:
        wait_until(lambda: len(ties.plans) >= 3, "lists without a change are news")
        assert relay.used
        relay.cut()
        wait_until(lambda: time.monotonic() - ties.agent.heard_at_s > 8.0, "plans have outlived the last news")
        relay.mend()
        wait_until(lambda: time.monotonic() - ties.agent.heard_at_s < 1.0, "there is news again")
    finally:
        running.stop()
        relay.close()


def _version(ties: Ties) -> str | None:
    stored = ties.get(f"nodereport.{ties.group}/{ties.node}")
    return None if stored is None else stored.get("status", {}).get("agentVersion")


def set_policy(ties: Ties, spec: Mapping[str, Any]) -> None:
    """Applies the EnergyPolicy."""
    body = {"apiVersion": f"{ties.group}/v1alpha1", "kind": "EnergyPolicy", "metadata": {"name": "default"}}
    ties.cluster.kubectl("apply", "-f", "-", stdin=json.dumps({**body, "spec": spec}))


def paused(ties: Ties) -> bool | None:
    """Whether the agent was told last that all is paused; None before it was told anything."""
    return ties.agent.policies[-1].paused if ties.agent.policies else None


def test_a_policy_is_heard_as_it_comes_changes_and_goes(tied: Ties) -> None:
    wait_until(lambda: paused(tied) is False, "there is none")
    set_policy(tied, {"paused": True, "pauseReason": "the grid"})
    wait_until(lambda: paused(tied) is True, "it is told of the pause")
    assert tied.agent.policies[-1].pause_reason == "the grid"
    set_policy(tied, {"maxSlowdownPercent": 2})
    wait_until(lambda: tied.agent.policies[-1] == EnergyPolicySpec(max_slowdown_percent=2), "it is told of the change")
    tied.cluster.kubectl("delete", f"energypolicies.{tied.group}", "default")
    wait_until(lambda: tied.agent.policies[-1] == EnergyPolicySpec(), "it is told that it is gone")


def test_a_policy_that_changes_while_the_api_server_is_out_of_reach_is_heard_afterwards(ties: Ties) -> None:
    relay = relayed(ties)
    running = ties.start(plans_live_s=8.0)
    try:
        wait_until(lambda: len(ties.agent.policies) >= 3, "lists without a change are news")
        relay.cut()
        set_policy(ties, {"paused": True})
        told = len(ties.agent.policies)
        relay.mend()
        wait_until(lambda: paused(ties) is True, "the pause arrives after all")
        assert EnergyPolicySpec() not in ties.agent.policies[told + 1 :]
    finally:
        running.stop()
        relay.close()


def test_a_cluster_without_the_kind_restricts_nothing_until_it_has_it(ties: Ties) -> None:
    crd = documents()["energypolicies.yaml"].replace("joulepath.dev", ties.group)
    kind = f"crd/energypolicies.{ties.group}"
    ties.cluster.kubectl("delete", kind)
    running = ties.start(plans_live_s=8.0)
    try:
        wait_until(lambda: paused(ties) is False, "there is no policy")
        ties.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=crd)
        ties.cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", kind)
        set_policy(ties, {"paused": True})
        wait_until(lambda: paused(ties) is True, "the kind is there, and the pause is told")
        set_policy(ties, {"paused": True, "pauseReason": "again"})
        wait_until(lambda: ties.agent.policies[-1].pause_reason == "again", "by the watch, too")
    finally:
        running.stop()
