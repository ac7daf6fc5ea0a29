"""Cores that are kept from halting, and let go again."""

from __future__ import annotations

from pathlib import Path

import pytest

from real_cluster import cores_awake, kernel


@pytest.fixture
def halt_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "guest_halt_poll_ns"
    monkeypatch.setattr(kernel, "_HALT_POLL", path)
    return path


def test_cores_that_halt_at_once_poll_first_and_halt_at_once_again_afterwards(halt_poll: Path) -> None:
    halt_poll.write_text("0\n")
    with cores_awake():
        assert int(halt_poll.read_text()) == 1_000_000
    assert halt_poll.read_text() == "0"


def test_cores_that_poll_for_longer_are_left_as_they_are(halt_poll: Path) -> None:
    halt_poll.write_text("5000000\n")
    with cores_awake():
        assert halt_poll.read_text() == "5000000\n"
    assert halt_poll.read_text() == "5000000\n"


def test_a_machine_that_is_no_virtual_one_is_left_alone(halt_poll: Path) -> None:
    with cores_awake():
        assert not halt_poll.exists()


def test_a_setting_that_cannot_be_written_disturbs_nothing(halt_poll: Path) -> None:
    halt_poll.write_text("0\n")
    with cores_awake():
        halt_poll.unlink()
        halt_poll.mkdir()  # writing fails from here on, even as root
    assert halt_poll.is_dir()
