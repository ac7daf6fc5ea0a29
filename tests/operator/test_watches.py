"""What kopf calls: it hands over, and nothing else waits while one object is read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import kopf
import pytest

from joulepath_crds import Measurements, NodeMeasurementStatus, NodeReportStatus, measured_of, state_of
from joulepath_operator.control import watches
from joulepath_operator.control.index import Index
from joulepath_operator.facts.names import NODE_MEASUREMENTS, NODE_STATES, Resource

LONG_S = 20.0
Feed = Callable[[Resource, dict[str, Any]], Any]


class Reading:
    """Of measurements: it has begun, and takes until it may end, where there are any."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    one, unpacked = Reading(), Measurements.unpacked

    def slowly(text: str) -> Measurements:
        one.begun.set()
        assert not text or one.may_end.wait(LONG_S), "somebody waits for what is read here"
        return unpacked(text)

    monkeypatch.setattr(Measurements, "unpacked", slowly)
    yield one
    one.may_end.set()


def feeding(index: Index) -> Feed:
    """Tells the index of an object as kopf does."""
    handlers: Any = watches.registry(index, lambda key: None)
    by_kind = {handler.id: handler.fn for handler in handlers._watching.get_all_handlers()}

    def feed(resource: Resource, body: dict[str, Any]) -> Any:
        return by_kind[resource.plural](type="MODIFIED", body=kopf.Body(cast("Any", body)))

    return feed


def measurement(version: int, packed: str = "") -> dict[str, Any]:
    status = NodeMeasurementStatus(packed=packed).to_api()
    return {"metadata": {"name": "node-0", "uid": "u", "resourceVersion": str(version)}, "status": status}


def test_while_measurements_are_read_the_loop_turns_and_what_ranks_do_is_known(
    new_world: Callable[..., Any], reading: Reading
) -> None:
    index, node = Index(), new_world().nodes()[0]
    status = NodeReportStatus(gpus=node.gpus, jobs=(node.report,))
    state = {"metadata": {"name": "node-0", "uid": "s", "resourceVersion": "1"}, "status": state_of(status).to_api()}

    async def told() -> None:
        feed = feeding(index)
        measured = asyncio.create_task(feed(NODE_MEASUREMENTS, measurement(1, measured_of(status).packed())))
        assert await asyncio.to_thread(reading.begun.wait, LONG_S)
        await feed(NODE_STATES, state)
        assert not measured.done()
        (found,) = index.nodes(node.report.namespace, node.report.job_uid)
        assert not found.report.ranks[0].order
        reading.may_end.set()
        await measured

    asyncio.run(told())
    (found,) = index.nodes(node.report.namespace, node.report.job_uid)
    assert found.report.ranks[0].order


def test_what_was_read_for_long_takes_the_place_of_nothing_newer(
    new_world: Callable[..., Any], reading: Reading
) -> None:
    """A list overtakes the watch, or the object is deleted meanwhile."""
    status = NodeReportStatus(jobs=(new_world().nodes()[0].report,))
    overtakes: tuple[Callable[[Index], Any], ...] = (
        lambda index: index.put(NODE_MEASUREMENTS, {"metadata": measurement(2)["metadata"], "status": None}),
        lambda index: index.drop(NODE_MEASUREMENTS, measurement(2)),
    )
    for overtake in overtakes:
        index = Index()
        reading.begun.clear()
        reading.may_end.clear()
        old = threading.Thread(target=index.put, args=(NODE_MEASUREMENTS, measurement(1, measured_of(status).packed())))
        old.start()
        assert reading.begun.wait(LONG_S)
        overtake(index)
        reading.may_end.set()
        old.join()
        assert not any(one.ranks for one in index._objects[NODE_MEASUREMENTS].values())
