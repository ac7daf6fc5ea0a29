"""Which priority level the API server gives requests, by its own word in the answer."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from simulated_nodes.place import Place, place
from simulated_nodes.population import Population
from simulated_nodes.release import OPERATOR, install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OURS = "/apis/joulepath.dev/v1alpha1"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Population]]:
    with place(Path(tmp_path_factory.mktemp("flow"))) as started:
        population = Population(started)
        install(started)
        yield started, population


def schema_of(place: Place, token: str, path: str, method: str = "GET") -> str:
    """The FlowSchema, by its UID, that a request was put into, whatever became of it."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    asked = urllib.request.Request(place.url + path, b"{}" if method == "PATCH" else None, headers, method=method)
    try:
        answer = urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=str(place.authority)))
    except HTTPError as error:
        answer = error
    with answer:
        return str(answer.headers["X-Kubernetes-PF-FlowSchema-UID"])


def test_what_agents_ask_of_our_kinds_has_a_level_of_its_own_and_nothing_else_has_it(
    here: tuple[Place, Population],
) -> None:
    started, population = here
    ((node, agent),) = population.nodes(1).items()
    uid = started.kubectl("get", "flowschema", "joulepath-agent", "-o", "jsonpath={.metadata.uid}")
    assert uid
    assert schema_of(started, agent, f"{OURS}/jobplans") == uid
    assert schema_of(started, agent, f"{OURS}/energypolicies") == uid
    assert schema_of(started, agent, f"{OURS}/nodestates/{node}/status", "PATCH") == uid
    assert schema_of(started, agent, f"/api/v1/nodes/{node}") not in (uid, "None"), "what containers may wait for"
    assert schema_of(started, population.token(OPERATOR), f"{OURS}/jobplans") not in (uid, "None")
