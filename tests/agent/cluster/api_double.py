"""An API server over HTTP as far as an agent asks one: JobPlans, jobs, a NodeReport and a Lease; it can fall silent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joulepath_agent.cluster.objects import ApiServer
from tests.json_server import JsonHandler, serving

__all__ = ["ApiDouble", "api_double"]


class ApiDouble:
    """What it serves and has seen."""

    def __init__(self) -> None:
        self.plans: list[dict[str, Any]] = []
        self.lists = 0
        """How many lists of plans were asked for."""
        self.policies: list[dict[str, Any]] | None = []
        """None where the kind isn't known."""
        self.policy_lists = 0
        self.policy_lists_fail = False
        self.policy_lists_unknown = 0
        """How many of the first are answered as if there were no such kind."""
        self.policy_watches: list[dict[str, str]] = []
        """The parameters of each."""
        self.policy_events: list[dict[str, Any]] = []
        """Told to a watch that is opened, at once."""
        self.reads: list[dict[str, str]] = []
        """The parameters of each read of a plan, which is a list of it alone."""
        self.reads_fail = False
        self.selectors: set[str] = set()
        """What they were to select by."""
        self.watches: list[dict[str, str]] = []
        """The parameters of each watch."""
        self.beats = 0
        """How often the Lease was renewed."""
        self.jobs: dict[str, dict[str, str]] = {}
        """Annotations of jobs, by their paths."""
        self.made_by: dict[str, dict[str, str]] = {}
        """The controllers of jobs, by the paths of these."""
        self.job_reads: list[tuple[str, str]] = []
        """Path and accepted type of each read of a job."""
        self.job_reads_fail = False
        self.job_reads_hang = threading.Event()
        """Reads of jobs are answered once this is set."""
        self.job_reads_hang.set()
        self.lists_fail = False
        self.told: list[dict[str, Any]] = []
        """Events that each watch begins with."""
        self.watches_hang = False
        """Whether a watch that is opened is never answered nor ended."""
        self.over = threading.Event()
        self.connection = ApiServer("http://127.0.0.1:9")


@contextmanager
def api_double() -> Iterator[ApiDouble]:
    """Runs one."""
    double = ApiDouble()

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            if "/energypolicies" in self.path:
                _tell_policies(self, double, asked)
                return
            if "watch" in asked:
                self._watch(asked)
                return
            if "/jobplans" in self.path:
                _tell_plans(self, double, asked)
            else:
                self._read_job()

        def _read_job(self) -> None:
            double.job_reads.append((self.path, self.headers["Accept"]))
            double.job_reads_hang.wait(30)
            if double.job_reads_fail:
                self.answer(503, {})
            elif self.path in double.jobs:
                name = self.path.rpartition("/")[2]
                metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "annotations": double.jobs[self.path]}
                if (maker := double.made_by.get(self.path)) is not None:
                    metadata["ownerReferences"] = [{"controller": True, **maker}]
                self.answer(200, {"kind": "PartialObjectMetadata", "metadata": metadata})
            else:
                self.answer(404, {})

        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            double.beats += "/leases/" in self.path
            self.answer(200, {})

        def _watch(self, asked: dict[str, str]) -> None:
            double.watches.append(asked)
            if double.watches_hang:
                double.over.wait()
                return
            _hold(self, double, asked, double.told)

    with serving(Handler) as url:
        double.connection = ApiServer(url)
        try:
            yield double
        finally:
            double.over.set()
            double.job_reads_hang.set()


def _tell_plans(handler: JsonHandler, double: ApiDouble, asked: dict[str, str]) -> None:
    accepts = handler.headers["Accept"]
    if "fieldSelector" in asked:
        double.reads.append(asked)
        if double.reads_fail:
            handler.answer(503, {})
            return
        name = asked["fieldSelector"].removeprefix("metadata.name=")
        handler.answer(200, {"items": [one for one in double.plans if one["metadata"]["name"] == name]})
        return
    double.lists += 1
    double.selectors.add(asked.get("labelSelector", ""))
    if "as=PartialObjectMetadataList;" not in accepts:  # of a list, the API server gives another kind
        handler.answer(406, {})
    elif double.lists_fail:
        handler.answer(503, {})
    else:
        items = [{"metadata": one["metadata"]} for one in double.plans]
        handler.answer(200, {"items": items or None, "metadata": {"resourceVersion": "1"}})


def _tell_policies(handler: JsonHandler, double: ApiDouble, asked: dict[str, str]) -> None:
    if "watch" in asked:
        double.policy_watches.append(asked)
        _hold(handler, double, asked, double.policy_events)
        return
    double.policy_lists += 1
    if double.policy_lists_fail:
        handler.answer(503, {})
    elif double.policies is None or double.policy_lists <= double.policy_lists_unknown:
        handler.answer(404, {})
    else:
        handler.answer(200, {"items": double.policies, "metadata": {"resourceVersion": "1"}})


def _hold(
    handler: JsonHandler, double: ApiDouble, asked: dict[str, str], events: Sequence[dict[str, Any]] = ()
) -> None:
    """A watch, with these events at its begin."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for event in events:
        line = json.dumps(event).encode() + b"\n"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
    handler.wfile.flush()
    double.over.wait(float(asked["timeoutSeconds"]))
    handler.wfile.write(b"0\r\n\r\n")
