"""How kopf works here."""

from __future__ import annotations

from joulepath_operator.control.settings import settings

NODES = 1024


def test_all_nodes_of_a_large_job_may_tell_within_a_second() -> None:
    """A worker that has handled an object is free for another one after the time that it idles."""
    queueing = settings().queueing
    assert queueing.worker_limit is not None
    assert queueing.worker_limit / queueing.idle_timeout >= NODES
