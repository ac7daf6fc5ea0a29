"""Folders of the node: the trainer's files never change under a container, and a pod's go with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulepath_injector.folders import PodFolders, TrainerFiles, trainer_package

ID, OTHER_ID = "0123456789abcdef" * 4, "1123456789abcdef" * 4


@pytest.fixture
def package(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    (made / "bootstrap").mkdir(parents=True)
    (made / "bootstrap/sitecustomize.py").write_text("one = 1\n")
    (made / "__pycache__").mkdir()
    (made / "__pycache__/x.pyc").write_bytes(b"compiled")
    return made


def test_the_trainer_of_this_release_is_put_there_whole_for_everybody_to_read(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files = TrainerFiles(trainer_package(), tmp_path / "trainer")
        files.check()
        there = files.place()
    finally:
        os.umask(before)
    assert there.parent == tmp_path / "trainer"
    assert [one.stat().st_mode & 0o777 for one in (there.parent, there)] == [0o755, 0o755]
    assert {one.stat().st_mode & 0o777 for one in there.rglob("*")} == {0o755, 0o644}
    environment = {"PYTHONPATH": str(there / "joulepath_trainer/bootstrap"), "JOULEPATH_SOCKET": "/nowhere"}
    said = "import sys; print(sys.modules['joulepath_trainer.hook'].__file__)"
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(there / "joulepath_trainer/hook.py")
    assert not done.stderr


def test_another_content_has_another_folder_and_a_used_one_stays(package: Path, tmp_path: Path) -> None:
    first = TrainerFiles(package, tmp_path / "trainer").place()
    (package / "bootstrap/sitecustomize.py").write_text("two = 2\n")
    files = TrainerFiles(package, tmp_path / "trainer")
    second = files.place()
    assert first != second
    files.forget({first})
    assert (first / "joulepath_trainer/bootstrap/sitecustomize.py").read_text() == "one = 1\n"
    files.forget(set())
    assert [*files.folder.iterdir()] == [second]


def test_compiled_files_are_no_part_of_it(package: Path, tmp_path: Path) -> None:
    there = TrainerFiles(package, tmp_path / "trainer").place()
    assert [one.name for one in there.rglob("*") if one.is_file()] == ["sitecustomize.py"]


def test_what_was_left_half_written_is_made_anew(package: Path, tmp_path: Path) -> None:
    there = TrainerFiles(package, tmp_path / "trainer").place()
    (there / "joulepath_trainer/bootstrap/sitecustomize.py").write_text("")
    (there.parent / "partial/joulepath_trainer").mkdir(parents=True)
    files = TrainerFiles(package, tmp_path / "trainer")
    files.check()
    assert files.place() == there
    assert (there / "joulepath_trainer/bootstrap/sitecustomize.py").read_text() == "one = 1\n"


@pytest.mark.parametrize("what", ["a folder", "a file"])
def test_what_is_in_the_place_of_the_files_gives_way(package: Path, tmp_path: Path, what: str) -> None:
    files = TrainerFiles(package, tmp_path / "trainer")
    there = files.place()
    (there / "joulepath_trainer/bootstrap/sitecustomize.py").unlink()
    if what == "a file":
        shutil.rmtree(there)
        there.write_text("")
    assert files.place() == there
    assert (there / "joulepath_trainer/bootstrap/sitecustomize.py").read_text() == "one = 1\n"
    assert [*there.parent.iterdir()] == [there]


def test_a_removal_that_ends_half_way_leaves_nothing_that_is_taken_for_whole(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "another.py").write_text("another = 1\n")
    files = TrainerFiles(package, tmp_path / "trainer")
    there = files.place()
    (there / "joulepath_trainer/another.py").write_text("")

    def remove_half(path: Path, ignore_errors: bool = False) -> None:
        for file in path.rglob("another.py"):
            file.unlink()
        if not ignore_errors:
            raise OSError("half way")

    monkeypatch.setattr(shutil, "rmtree", remove_half)
    with contextlib.suppress(OSError):
        files.check()
    assert (files.place() / "joulepath_trainer/another.py").read_text() == "another = 1\n"
    monkeypatch.undo()
    files.forget(set())
    assert [*files.folder.iterdir()] == [there]


def test_files_that_somebody_has_removed_are_put_there_again(package: Path, tmp_path: Path) -> None:
    files = TrainerFiles(package, tmp_path / "trainer")
    file = files.place() / "joulepath_trainer/bootstrap/sitecustomize.py"
    (file.parent.parent.parent.rename(tmp_path / "away"))
    files.place()
    assert file.exists()


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    made = tmp_path / "busybox"
    made.write_bytes(b"#!/bin/sh\n")
    return made


def test_volumes_find_the_files_and_a_program_that_runs_by_a_name_that_stays(
    package: Path, busybox: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        for content in ("one = 1\n", "two = 2\n"):
            (package / "bootstrap/sitecustomize.py").write_text(content)
            files = TrainerFiles(package, tmp_path / "trainer", busybox)
            files.check()
            files.lead()
            current = files.folder / "current"
            assert (current / "joulepath_trainer/bootstrap/sitecustomize.py").read_text() == content
            assert (current / "busybox").stat().st_mode & 0o777 == 0o755
            assert not Path(os.readlink(current)).is_absolute(), "it is followed from within containers"
    finally:
        os.umask(before)
    assert len([*files.folder.glob("*/busybox")]) == 3, "what a container may run from is kept"


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("")])
def test_a_program_that_is_not_there_as_it_should_be_is_put_there_anew(
    package: Path, busybox: Path, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    files = TrainerFiles(package, tmp_path / "trainer", busybox)
    harm(files.place() / "busybox")
    files.check()
    assert (files.place() / "busybox").read_bytes() == busybox.read_bytes()


def test_an_injector_leaves_what_volumes_find_and_all_that_a_container_with_such_a_volume_may_use(
    package: Path, busybox: Path, tmp_path: Path
) -> None:
    of_volumes = TrainerFiles(package, tmp_path / "trainer", busybox)
    found = of_volumes.place()
    of_volumes.lead()
    (of_volumes.folder / "older").mkdir()
    files = TrainerFiles(package, tmp_path / "trainer")
    own = files.place()
    files.forget({files.folder})
    assert (files.folder / "older").exists()
    files.forget(set())
    assert {*files.folder.iterdir()} == {found, own, files.folder / "current"}


def test_a_pods_folder_is_open_and_the_one_that_holds_it_roots_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = PodFolders(tmp_path / "pods").make("c0ffee-1", ID)
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in (made, made.parent)] == [0o755, 0o700]
    assert PodFolders(tmp_path / "pods").make("c0ffee-1", ID) == made


def test_folders_go_with_their_pods_and_no_others(tmp_path: Path) -> None:
    folders = PodFolders(tmp_path / "pods")
    for uid in ("one", "two", "three", "one-and-more"):
        for container in (ID, OTHER_ID):
            (folders.make(uid, container) / "agent.sock").touch()
    folders.remove("one")
    folders.remove("never-there")
    folders.forget({"two", "one-and-more"}, {("two", ID), ("one-and-more", OTHER_ID)})
    left = {one.name.partition(".")[0] for one in (tmp_path / "pods").iterdir()}
    assert left == {"two", "one-and-more"}


def test_the_folder_of_a_container_that_ended_unheard_goes_though_its_pod_stays(tmp_path: Path) -> None:
    before = PodFolders(tmp_path / "pods")
    stays, ended = (before.make("uid", container) for container in (ID, OTHER_ID))
    PodFolders(tmp_path / "pods").forget({"uid"}, {("uid", ID)})
    assert stays.exists()
    assert not ended.exists()


def test_the_folder_of_a_container_that_is_being_made_stays_though_the_runtime_does_not_know_it_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = PodFolders(tmp_path / "pods")
    made = folders.make("uid", ID)
    folders.forget({"uid"}, set())
    assert made.exists()
    monkeypatch.setattr("joulepath_injector.folders._YOUNG_S", 0.0)
    folders.forget({"uid"}, set())
    assert not made.exists()


def test_a_container_has_a_folder_of_its_own_which_goes_alone(tmp_path: Path) -> None:
    folders = PodFolders(tmp_path / "pods")
    first, second = (folders.make("uid", container) for container in (ID, OTHER_ID))
    assert first != second
    folders.remove("uid", ID)
    folders.remove("uid", ID)
    assert not first.exists()
    assert second.exists()


@pytest.mark.parametrize(
    ("uid", "container"),
    [
        *((uid, ID) for uid in ("", "..", ".", "a/b", "../../etc", "x" * 65, "*")),
        *(("uid", container) for container in ("", "../uid", "x", "*", "a/b")),
    ],
)
def test_a_name_that_leads_elsewhere_makes_and_removes_nothing(tmp_path: Path, uid: str, container: str) -> None:
    folders = PodFolders(tmp_path / "pods")
    there = folders.make("uid", OTHER_ID)
    with pytest.raises(OSError, match="no folder can have the name"):
        folders.make(uid, container)
    folders.remove(uid, container)
    assert there.exists()
    assert [one.name for one in tmp_path.iterdir()] == ["pods"]


def put_there(state: Path, busybox: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command that puts files there for volumes."""
    command = [sys.executable, "-m", "joulepath_injector", "--files-only", busybox, "--state-dir", state]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("says", "led"), [("exit 0", True), ("exit 1", False)])
def test_the_command_puts_files_there_for_volumes_once_what_they_run_has_run(
    tmp_path: Path, busybox: Path, says: str, led: bool
) -> None:
    busybox.write_text(f"#!/bin/sh\n{says}\n")
    done = put_there(tmp_path / "state", busybox)
    assert done.returncode == 0, "the clocks start after it"
    assert (tmp_path / "state/trainer/current/joulepath_trainer/hook.py").exists() == led
    assert led or "exit status 1" in done.stderr
    assert led or "may not start on this node" in done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], check=False).returncode:
        pytest.skip("this test may not mount")
    yield where
    subprocess.run(["umount", where], check=True)


def test_on_a_read_only_disk_what_is_there_already_serves_and_nothing_that_starts_later_is_kept_from_it(
    disk: Path, busybox: Path
) -> None:
    assert put_there(disk, busybox).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = put_there(disk, busybox)
    assert done.returncode == 0
    assert "pods that mount them go on with those that were there before" in done.stderr
    assert (disk / "trainer/current/joulepath_trainer/hook.py").exists()


def test_on_a_full_disk_what_is_there_is_kept_and_nothing_half_written_stays(disk: Path, busybox: Path) -> None:
    assert put_there(disk, busybox).returncode == 0
    current = os.readlink(disk / "trainer/current")
    fill(disk)
    done = put_there(disk, busybox)
    assert (done.returncode, done.stderr) == (0, ""), "there is nothing to write"
    busybox.write_bytes(b"#!/bin/sh\n# of another release\n")
    done = put_there(disk, busybox)
    assert done.returncode == 0
    assert "No space left on device" in done.stderr
    assert "pods that mount them go on with those that were there before" in done.stderr
    assert sorted(one.name for one in (disk / "trainer").iterdir()) == sorted([current, "current"])


def test_on_a_disk_that_takes_nothing_at_all_it_is_said_and_nothing_that_starts_later_is_kept_from_it(
    disk: Path, busybox: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = put_there(disk, busybox)
    assert done.returncode == 0
    assert "Read-only file system" in done.stderr
    assert "may not start on this node" in done.stderr


def fill(disk: Path) -> None:
    """Leaves no room."""
    with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
