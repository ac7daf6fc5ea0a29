"""Callbacks after imports."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from joulepath_trainer.hook import PostImportHook


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on the path with two modules; all is as before afterwards."""
    path, finders, modules = sys.path.copy(), sys.meta_path.copy(), set(sys.modules)
    (tmp_path / "watched.py").write_text("value = 1")
    (tmp_path / "other.py").write_text("value = 2")
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def follow(**callbacks: object) -> None:
    sys.meta_path.insert(0, PostImportHook(callbacks))  # type: ignore[arg-type]


def test_the_callback_gets_the_whole_module_once(folder: Path) -> None:
    seen: list[ModuleType] = []
    follow(watched=seen.append)
    importlib.import_module("other")
    assert seen == []
    watched = importlib.import_module("watched")
    assert seen == [watched]
    assert watched.value == 1
    importlib.reload(watched)
    assert seen == [watched]


def test_asking_for_the_spec_only_calls_nothing_and_the_loader_stays_what_it_is(folder: Path) -> None:
    seen: list[ModuleType] = []
    follow(watched=seen.append)
    assert importlib.util.find_spec("watched") is not None
    assert seen == []
    watched = importlib.import_module("watched")
    assert seen == [watched]
    assert type(watched.__loader__).__name__ == "SourceFileLoader"
    assert "exec_module" not in vars(watched.__loader__)


def test_a_callback_that_fails_is_said_in_one_line_and_the_import_succeeds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: ModuleType) -> None:
        raise KeyError("ours")

    follow(watched=fail)
    assert importlib.import_module("watched").value == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_module_that_fails_to_import_raises_its_own_error_and_can_be_imported_later(folder: Path) -> None:
    seen: list[ModuleType] = []
    follow(watched=seen.append)
    (folder / "watched.py").write_text("raise ValueError('theirs')")
    with pytest.raises(ValueError, match="theirs"):
        importlib.import_module("watched")
    assert seen == []
    (folder / "watched.py").write_text("longer_value = 12345")
    assert seen == [importlib.import_module("watched")]


def test_a_missing_module_is_missing(folder: Path) -> None:
    follow(absent=lambda _: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("absent")


def test_two_hooks_on_one_module_both_see_it(folder: Path) -> None:
    seen: list[ModuleType] = []
    follow(watched=seen.append)
    follow(watched=seen.append)
    watched = importlib.import_module("watched")
    assert seen == [watched, watched]


def test_a_finder_that_asks_the_others_as_this_one_does_ends(folder: Path) -> None:
    class Asking:
        busy = False

        def find_spec(self, name: str, path: object = None, target: object = None) -> object:
            if name != "watched" or self.busy:
                return None
            self.busy = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.busy = False

    seen: list[ModuleType] = []
    sys.meta_path.insert(0, Asking())  # type: ignore[arg-type]
    follow(watched=seen.append)
    sys.meta_path.insert(0, Asking())  # type: ignore[arg-type]
    assert [importlib.import_module("watched")] == seen


def test_modules_in_an_archive_share_a_loader_and_only_the_watched_one_is_seen(folder: Path) -> None:
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("zipped.py", "import zipped_too")
        archive.writestr("zipped_too.py", "")
    sys.path.insert(0, str(folder / "archive.zip"))
    seen: list[ModuleType] = []
    follow(zipped=seen.append)
    assert [importlib.import_module("zipped")] == seen
    assert "zipped_too" in sys.modules


def test_a_module_whose_loader_cannot_be_followed_is_imported_unobserved(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Rigid:
        __slots__ = ()

        def create_module(self, _: object) -> None:
            return None

        def exec_module(self, module: ModuleType) -> None:
            module.value = 3  # type: ignore[attr-defined]

    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> object:
            return importlib.util.spec_from_loader(name, Rigid()) if name == "watched" else None  # type: ignore[arg-type]

    seen: list[ModuleType] = []
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
    follow(watched=seen.append)
    assert importlib.import_module("watched").value == 3
    assert seen == []
    assert "Rigid" in capsys.readouterr().err
