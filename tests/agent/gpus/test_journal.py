"""The journal of locked GPUs."""

from __future__ import annotations

from pathlib import Path

from joulepath_agent.gpus.journal import Journal


def test_what_was_added_and_not_removed_is_there_for_the_next_agent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    for uuid in ("GPU-1", "GPU-2", "GPU-3"):
        journal.add(uuid)
    journal.remove("GPU-2")
    assert Journal(tmp_path / "state").uuids == {"GPU-1", "GPU-3"}


def test_a_write_that_was_cut_off_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    Journal(tmp_path).add("GPU-1")
    (tmp_path / "locked-gpus.new").write_text("GP")
    assert Journal(tmp_path).uuids == {"GPU-1"}
