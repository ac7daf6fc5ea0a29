"""What the agents of all nodes say of the EnergyPolicy: read as `kubectl get` shows it, since reports are large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from joulepath_cli.apiserver import TABLE, ApiServer
from joulepath_crds import GROUP, POLICY_HEARD, POLICY_PAUSED, POLICY_PAUSING, POLICY_UNHEARD, VERSION

__all__ = ["holds", "said", "words"]

_COLUMN: Final = "Policy"


def said(api: ApiServer) -> Mapping[str, str]:
    """A word of each node that reports, by its name; empty of an agent that knows no policy.

    Raises:
        AnswerError: The API server doesn't tell.
        ConnectionError: It doesn't answer.
    """
    told: dict[str, str] = {}
    for page in api.pages("apis", GROUP, VERSION, "nodereports", accept=TABLE):
        names = [one["name"] for one in page.get("columnDefinitions") or ()]
        for row in page.get("rows") or ():
            cells = dict(zip(names, row["cells"], strict=False))
            told[row["object"]["metadata"]["name"]] = cells.get(_COLUMN) or ""
    return told


def holds(word: str, paused: bool) -> bool:
    """Whether who says this rests, or no longer rests."""
    return word == (POLICY_PAUSED if paused else POLICY_HEARD)


def words(word: str, paused: bool) -> str:
    """What it means that a node says this, and what to do."""
    if word == POLICY_UNHEARD:
        return "its agent can't read the EnergyPolicy and begins no plan; its log says why"
    if word == POLICY_PAUSING:
        return "a plan is still carried out, or its clocks can't be asked; see the log of its agent's pod"
    if word == (POLICY_HEARD if paused else POLICY_PAUSED):
        return (
            "its agent hasn't heard of it: it is down, or can't reach the API server; plans expire there by themselves"
        )
    return "its agent or the CRDs are of an older release; where no agent runs any more, kubectl delete nodereport NAME"
