"""What the demo needs of a cluster, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from demo.manifests import TrainingPlace

__all__ = [
    "JOB_NAMESPACE",
    "RELEASE",
    "RELEASE_NAMESPACE",
    "REPOSITORY",
    "Place",
    "PlaceError",
    "refuse_other_releases",
]

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RELEASE: Final = "joulepath"
RELEASE_NAMESPACE: Final = "joulepath-demo-system"
JOB_NAMESPACE: Final = "joulepath-demo"


class PlaceError(RuntimeError):
    """The machine or the cluster lacks something; the text says what, and what to do."""


class Place(Protocol):
    """A cluster."""

    @property
    def kubeconfig(self) -> Path | None:
        """The kubeconfig; None for the default one."""

    def prepare(self) -> None:
        """Bring it up, with GPUs and images.

        Raises:
            PlaceError: Something is missing.
        """

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of kubectl."""

    def helm(self, *arguments: str) -> str:
        """Standard output of Helm."""

    def values(self) -> Mapping[str, Any]:
        """The chart's values for this cluster."""

    def training(self) -> TrainingPlace:
        """Where and with what the training pods run."""

    def scrape(self) -> str | None:
        """Starts a Prometheus that scrapes Joulepath; its URL, None where the cluster has its own."""

    def slow(self, share: float) -> None:
        """Let the GPUs of its last node become slower by so much, where they are virtual."""

    def leave(self) -> None:
        """Undo `prepare`: what was up before stays up."""

    def tools(self) -> Sequence[str]:
        """Lines for a person who wants to look around."""


def refuse_other_releases(place: Place) -> None:
    """Two agents must not set one GPU's clocks.

    Raises:
        PlaceError: Joulepath is installed by somebody else.
    """
    namespaces = "--output=jsonpath={.items[*].metadata.namespace}"
    agents = ("get", "daemonsets", "--all-namespaces", "--selector=app.kubernetes.io/name=joulepath", namespaces)
    if others := set(place.kubectl(*agents).split()) - {RELEASE_NAMESPACE}:
        raise PlaceError(
            f"Joulepath is installed already, in namespace {', '.join(sorted(others))}, and two agents must not set "
            "one GPU's clocks: wait until a test that uses it is over, or uninstall it (helm uninstall)."
        )
