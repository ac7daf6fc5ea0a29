"""One process holds a lock, and a lock that isn't there yet is made by none that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulepath_warden.lock import Lock


def test_one_holds_it_until_it_is_closed_and_its_name_is_told(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "x.lock"), Lock(tmp_path / "x.lock")
    assert first.take()
    assert first.take()
    assert not second.take()
    assert "process" in second.holder
    first.close()
    assert second.take()
    second.close()


def test_who_may_not_make_it_waits_for_whoever_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "state" / "agent.lock", makes=False)
    assert not (tmp_path / "state").exists()
    (tmp_path / "agent.lock").touch()
    reader = Lock(tmp_path / "agent.lock", makes=False)
    assert reader.take()
    reader.close()
