"""Writes the one EnergyPolicy, and waits until each node's agent says that it holds to it."""

from __future__ import annotations

import math
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from typing import Any, Final

from joulepath_cli.apiserver import CONFLICT, FORBIDDEN, NOT_FOUND, AnswerError, ApiServer, connected
from joulepath_cli.commands.pause.appliers import warning
from joulepath_cli.commands.pause.nodes import holds, said, words
from joulepath_cli.terminal import working
from joulepath_crds import GROUP, POLICY_NAME, VERSION

__all__ = ["add_waiting", "switch"]

_POLICIES: Final = ("apis", GROUP, VERSION, "energypolicies")
_LOOK_S: Final = 0.5


def add_waiting(parser: ArgumentParser) -> None:
    """How long to wait."""
    what = "how long to wait until all nodes say so (30)"
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help=what)


def switch(paused: bool, reason: str, timeout_s: float) -> int:
    """Pauses all plans, or ends that; the exit status.

    Raises:
        ConnectionError: No cluster answers.
        PermissionError: It doesn't let this user do that, or it lacks Joulepath.
    """
    done = "paused" if paused else "no longer paused"
    with connected() as api:
        policy = _written(api, {"paused": paused, "pauseReason": reason or None})
        if policy is None:
            print(f"Nothing is paused: there is no EnergyPolicy {POLICY_NAME}.")
            return 0
        if undone := warning(policy, paused):
            print(f"Warning: {undone}", file=sys.stderr)
        begun_s = time.monotonic()
        with working("waiting for all nodes"):
            nodes = _waited(api, paused, begun_s + timeout_s)
    if not nodes:
        print(f"All plans are {done}. No agent reports in this cluster, so there is nobody to wait for.")
        return 0
    others = {node: word for node, word in nodes.items() if not holds(word, paused)}
    if others:
        print(f"All plans are {done}, but {len(others)} of {len(nodes)} nodes haven't said so within {timeout_s:g} s:")
        for node, word in sorted(others.items()):
            print(f"  {node}: {words(word, paused)}")
        return 1
    print(f"All plans are {done}, and so say all nodes, {len(nodes)}, after {time.monotonic() - begun_s:.1f} s.")
    return 0


def _waited(api: ApiServer, paused: bool, until_s: float) -> Mapping[str, str]:
    """What all nodes say in the end."""
    try:
        while True:
            nodes = said(api)
            if all(holds(word, paused) for word in nodes.values()) or time.monotonic() >= until_s:
                return nodes
            time.sleep(_LOOK_S)
    except AnswerError as error:
        what = "It is written, but which nodes hold to it is unknown"
        raise _refused(error, "list nodereports", what) from None


def _written(api: ApiServer, spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The policy as it is by now, None without one: it is made where it is missing, but only to pause."""
    try:
        for _ in range(2):
            try:
                return api.merge({"spec": spec}, *_POLICIES, POLICY_NAME)
            except AnswerError as error:
                if error.status != NOT_FOUND:
                    raise
            if not spec["paused"]:
                return None
            try:
                return api.create(_policy(spec), *_POLICIES)
            except AnswerError as error:
                if error.status != CONFLICT:  # somebody was faster
                    raise
    except AnswerError as error:
        raise _refused(error, "create and patch energypolicies", "Nothing was changed") from None
    raise PermissionError("Nothing was changed: EnergyPolicies come and go; see kubectl get energypolicies -w.")


def _policy(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    told = {name: value for name, value in spec.items() if value is not None}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "EnergyPolicy",
        "metadata": {"name": POLICY_NAME},
        "spec": told,
    }


def _refused(error: AnswerError, right: str, what: str) -> PermissionError:
    if error.status == FORBIDDEN:
        return PermissionError(f"{what}: you may not {right}.{GROUP}. Ask whoever administers this cluster.")
    if error.status == NOT_FOUND:
        remedy = "Apply the CRDs of this release (kubectl apply --server-side -f crds/)."
        return PermissionError(f"{what}: this cluster doesn't know the kind EnergyPolicy. {remedy}")
    return PermissionError(f"{what}: {error}{f' ({error.said})' if error.said else ''}.")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise ArgumentTypeError(f"{text!r} is no time to wait; write seconds from 0 to 3600")
    return seconds
