"""Which of two agents of a node may speak for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from joulepath_agent.channel import Channel
from joulepath_clocks.channel.words import LOCK_NAME
from joulepath_warden.lock import Lock
from tests.agent.room import wait_until


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    """An agent's end, with nobody at the other."""
    made = Channel(tmp_path, lambda word: None, lambda: None, lambda: None)
    yield made
    made.stop()


def test_an_agent_waits_for_as_long_as_another_has_the_lock(
    channel: Channel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / LOCK_NAME).touch()
    other = Lock(tmp_path / LOCK_NAME, makes=False)
    assert other.take()
    channel.start()
    assert channel.waits, "also before it is known"
    assert not channel.chosen
    wait_until(lambda: "another agent" in caplog.text, "it has asked")
    assert channel.waits
    other.close()
    wait_until(lambda: not channel.waits, "it is its turn")
    assert channel.chosen


def test_where_there_are_no_clocks_an_agent_says_so_in_its_report(channel: Channel) -> None:
    channel.start()
    wait_until(lambda: not channel.waits, "it waits for nobody")
    assert not channel.chosen
