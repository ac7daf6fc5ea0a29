"""What the tests of the command share: a profile of four uneven stages, and how a command ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from joulepath_planner import Profile
from tests.planner.pipelines import scaled

PROFILE: Profile = scaled([1.0, 1.3, 0.8, 0.9], 1).profile


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]
