"""The journal of GPUs that may be locked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_warden.journal import EVERY_GPU, Journal, is_uuid

UUIDS = [f"GPU-{i:08x}-0000-4000-8000-0123456789ab" for i in range(3)]


def test_what_was_added_and_not_removed_is_there_for_the_next_warden(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.remove(EVERY_GPU)
    journal.add(*UUIDS)
    journal.remove(UUIDS[1])
    again = Journal(tmp_path)
    assert again.entries == {UUIDS[0], UUIDS[2]}
    assert again.trouble == ""


def test_a_write_that_was_cut_off_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.remove(EVERY_GPU)
    journal.add(UUIDS[0])
    (tmp_path / "locked-gpus.new").write_text("GP")
    assert Journal(tmp_path).entries == {UUIDS[0]}


@pytest.mark.parametrize("empty", [True, False])
def test_no_journal_and_one_that_is_a_folder_put_every_gpu_in_doubt(tmp_path: Path, empty: bool) -> None:
    if not empty:
        (tmp_path / "locked-gpus").mkdir()
    assert Journal(tmp_path).entries == {EVERY_GPU}
    assert Journal(tmp_path).trouble


@given(at=st.integers(min_value=0), value=st.integers(0, 255), cut=st.booleans())
def test_any_damage_puts_every_gpu_in_doubt(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("state")
    journal = Journal(folder)
    journal.remove(EVERY_GPU)
    journal.add(*UUIDS)
    content = (folder / "locked-gpus").read_bytes()
    at %= len(content)
    damaged = content[:at] if cut else content[:at] + bytes([value]) + content[at + 1 :]
    (folder / "locked-gpus").write_bytes(damaged)
    assert Journal(folder).entries == ({*UUIDS} if damaged == content else {EVERY_GPU})


def test_what_is_in_doubt_stays_so_on_the_disk_until_it_is_struck(tmp_path: Path) -> None:
    Journal(tmp_path).add(UUIDS[0])
    assert Journal(tmp_path).entries == {EVERY_GPU, UUIDS[0]}


@pytest.mark.parametrize(
    "text", ["", "GPU-1", "GPU-of-another-day", UUIDS[0].upper(), UUIDS[0] + "\n", "MIG-" + UUIDS[0]]
)
def test_what_nvml_could_not_name_a_gpu_is_no_uuid(text: str) -> None:
    assert not is_uuid(text)
    assert is_uuid(UUIDS[0])
