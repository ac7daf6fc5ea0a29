"""A pod with a user namespace of its own, on a real node that can have such pods."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from joulepath_injector.words import Done, Outcome
from real_cluster import NEWER_RUNC, Cluster, other_node
from tests.injector.test_real_runtime import SHOW, Place, busybox, is_injected, wait_done

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Place]:
    name = f"injector-{uuid4().hex[:6]}"
    with other_node(cluster, NEWER_RUNC) as node:
        cluster.kubectl("create", "namespace", name)
        yield Place(cluster, node, name)
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_a_pod_with_a_user_namespace_of_its_own_runs_as_it_is_and_the_agent_hears_why(place: Place) -> None:
    shown = busybox(script=f"{SHOW}; cat /proc/self/uid_map")
    with place.injector(), place.agent() as agent:
        pods = {host: place.run(shown, hostUsers=host) for host in (False, True)}
        told = {host: wait_done(agent, pod) for host, pod in pods.items()}
    said = {host: place.said(pod) for host, pod in pods.items()}
    assert {host: is_injected(text) for host, text in said.items()} == {False: False, True: True}
    mapped = {host: int(text.split("end\n")[1].split()[1]) for host, text in said.items()}
    assert mapped[False] > 0
    assert mapped[True] == 0
    why = "The pod has a user namespace of its own (hostUsers: false)."
    assert told[False] == Done(told[False].uid, "pytorch", Outcome.UNSUITED, why)
    assert told[True].outcome is Outcome.INJECTED
