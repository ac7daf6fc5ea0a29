"""Rooms for the tests of the warden: the agent's."""

from __future__ import annotations

from tests.agent.conftest import launcher, room
from tests.agent.test_logs import clogged
from tests.warden.locked_node import agentless, locked

__all__ = ["agentless", "clogged", "launcher", "locked", "room"]
