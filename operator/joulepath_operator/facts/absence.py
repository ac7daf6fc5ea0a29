"""Why a pod of an annotated job has no trainer: every reason there is, for either way by which pods get it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

__all__ = ["Absence", "Lack", "Means", "Way"]


class Way(StrEnum):
    """By which pods get the trainer."""

    VOLUMES = "volumes"
    """The webhook adds it to the pod."""
    NRI = "nri"
    """The node's injector adds it to the container."""


@dataclass(frozen=True, slots=True)
class Means:
    """How pods of this cluster get it; `gpu_resources` are those by which the webhook knows a container that trains."""

    way: Way = Way.VOLUMES
    gpu_resources: tuple[str, ...] = ("nvidia.com/gpu",)


class Lack(StrEnum):
    """A reason, by the code that conditions show; where pods have several, the first of these is told.

    What is `surmised` is so only if the agent of the pod's node is well, and no rank of the pod reports."""

    surmised: bool

    def __new__(cls, code: str, surmised: bool = False) -> Self:
        one = str.__new__(cls, code)
        one._value_, one.surmised = code, surmised
        return one

    FAILS = "InitContainerFails"
    UNLABELLED = "NamespaceNotLabelled", True
    UNSUITED = "PodsUnsuited"
    BEFORE = "PodsPredateInjector"
    LATE = "InjectedTooLate"
    OLD_PYTHON = "PythonTooOld", True
    NO_INJECTOR = "InjectorAbsent", True
    NRI_OFF = "NRIOff", True
    NRI_FAILS = "NRIFails", True
    UNREPORTED = "InjectorUnreported", True
    UNANNOTATED = "PodsPredateAnnotation", True
    BEFORE_LABEL = "PodsPredateLabel", True
    STOPPED = "InjectionStopped", True
    DENIED = "InjectionDenied", True
    MISSED = "NotInjected", True
    NO_GPU = "NoGPUHeld"

    @property
    def rank(self) -> int:
        """Its place among all."""
        return list(Lack).index(self)


@dataclass(frozen=True, slots=True)
class Absence:
    """Of the trainer from a pod; `why` says more, as a clause, where there is more to say."""

    reason: Lack
    why: str = ""
    by_webhook: bool = False
    """Whether the trainer is there, by the webhook of before, and the agent would serve it but for this reason; it may
    do so all the same."""
