"""The rooms of the agent's tests, as far as these need them."""

from __future__ import annotations

from tests.agent.conftest import launcher, room
from tests.clocks.door_house import house

__all__ = ["house", "launcher", "room"]
