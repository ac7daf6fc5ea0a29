"""Python starts as it would without us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import BOOTSTRAP

REPORT = """
import json, os, sys
print(json.dumps({
    "path": sys.path, "environment": os.environ.get("PYTHONPATH"), "modules": sorted(sys.modules),
    "finders": [type(finder).__name__ for finder in sys.meta_path],
    "sitecustomize": getattr(sys.modules.get("sitecustomize"), "__file__", None),
}))
"""


def python(*options: str, code: str = REPORT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(BOOTSTRAP), **environment}
    return subprocess.run(
        [sys.executable, *options, "-c", code], env=clean, capture_output=True, text=True, check=False, timeout=60
    )


def report(*options: str, **environment: str) -> dict[str, Any]:
    done = python(*options, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose ENV PYTHONPATH holds two folders; the file says so."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in_{name}.py").touch()
    (tmp_path / "pythonpath").write_text(f"{tmp_path}/first:{tmp_path}/second")
    return tmp_path


def test_the_hook_brings_two_modules_and_a_finder_and_nothing_else() -> None:
    plain, hooked = report(PYTHONPATH=""), report(JOULEPATH_SOCKET="/nowhere")
    brought = set(hooked["modules"]) - set(plain["modules"])
    assert brought <= {"joulepath_trainer", "joulepath_trainer.hook", "sitecustomize", "__future__"}
    assert hooked["finders"] == ["PostImportHook", *plain["finders"]]
    assert hooked["path"] == plain["path"]


def test_without_a_socket_there_is_no_hook() -> None:
    plain, bootstrapped = report(PYTHONPATH=""), report()
    assert set(bootstrapped["modules"]) - set(plain["modules"]) <= {"sitecustomize", "__future__"}
    assert bootstrapped["finders"] == plain["finders"]
    assert bootstrapped["path"] == plain["path"]


def test_the_path_of_the_image_is_what_it_would_be_without_the_pods_variable(image: Path) -> None:
    file = str(image / "pythonpath")
    ours = report(JOULEPATH_IMAGE_PYTHONPATH_FILE=file, JOULEPATH_SOCKET="/nowhere")
    images = report(PYTHONPATH=f"{image}/first:{image}/second")
    assert ours["path"] == images["path"]
    assert ours["environment"] == f"{BOOTSTRAP}:{image}/first:{image}/second"


def test_a_child_process_has_the_path_of_the_image_once(image: Path) -> None:
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {REPORT!r}]))"
    done = python(code=code, JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"), JOULEPATH_SOCKET="/nowhere")
    child = json.loads(done.stdout)
    assert child["path"] == report(PYTHONPATH=f"{image}/first:{image}/second")["path"]
    assert child["environment"] == f"{BOOTSTRAP}:{image}/first:{image}/second"
    assert child["finders"][0] == "PostImportHook"


def test_empty_entries_and_a_last_newline_mean_what_they_mean_to_python(image: Path) -> None:
    (image / "pythonpath").write_text(f"{image}/first:\n")
    ours = report(JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    assert ours["path"] == report(PYTHONPATH=f"{image}/first:")["path"]


def test_an_unset_path_of_the_image_changes_nothing(image: Path) -> None:
    (image / "pythonpath").write_text("")
    assert report(JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))["path"] == report(PYTHONPATH="")["path"]


def test_a_file_that_was_never_written_is_nothing_to_speak_of(tmp_path: Path) -> None:
    """As where somebody's webhook has taken out the init container that writes it."""
    missing = report(JOULEPATH_IMAGE_PYTHONPATH_FILE=str(tmp_path / "none"))
    assert missing["path"] == report()["path"]
    done = python(code="print(1)", JOULEPATH_IMAGE_PYTHONPATH_FILE=str(tmp_path / "none"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_file_that_cannot_be_read_is_said_in_one_line_and_python_runs(tmp_path: Path) -> None:
    done = python(code="print(1)", JOULEPATH_IMAGE_PYTHONPATH_FILE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert len(done.stderr.splitlines()) == 1
    assert "PYTHONPATH" in done.stderr


def test_files_that_a_link_leads_to_stay_those_of_a_process_when_it_leads_elsewhere(tmp_path: Path) -> None:
    for name in ("old", "new"):
        shutil.copytree(BOOTSTRAP.parent, tmp_path / name / "joulepath_trainer")
    (tmp_path / "current").symlink_to("old")
    code = f"""if True:
        import os, sys
        os.unlink({str(tmp_path / "current")!r})
        os.symlink("new", {str(tmp_path / "current")!r})
        import joulepath_trainer.session
        print(joulepath_trainer.session.__file__, os.environ["PYTHONPATH"] in sys.path)
    """
    bootstrap = str(tmp_path / "current/joulepath_trainer/bootstrap")
    done = python(code=code, PYTHONPATH=bootstrap, JOULEPATH_SOCKET="/nowhere")
    assert (done.stdout.split(), done.stderr) == ([f"{tmp_path}/old/joulepath_trainer/session.py", "False"], "")


@pytest.mark.parametrize("where", ["pod", "image"])
def test_a_shadowed_sitecustomize_runs_and_is_the_one_that_python_knows(image: Path, where: str) -> None:
    shadowed = image / "first" / "sitecustomize.py"
    shadowed.write_text("import sys; sys.greeting = 'hello'; sys.path.append('/added')")
    if where == "image":
        done = report(JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"), JOULEPATH_SOCKET="/nowhere")
    else:
        done = report(PYTHONPATH=f"{BOOTSTRAP}:{image}/first", JOULEPATH_SOCKET="/nowhere")
    assert done["sitecustomize"] == str(shadowed)
    assert done["path"][-1] == "/added"
    assert "PostImportHook" in done["finders"]


def test_a_shadowed_sitecustomize_that_fails_is_reported_as_python_reports_it(image: Path) -> None:
    (image / "first" / "sitecustomize.py").write_text("raise KeyError('theirs')")
    with_us = python(PYTHONPATH=f"{BOOTSTRAP}:{image}/first", JOULEPATH_SOCKET="/nowhere")
    without = python(PYTHONPATH=f"{image}/first")
    assert with_us.returncode == without.returncode == 0
    assert with_us.stderr == without.stderr
    assert "theirs" in with_us.stderr
    assert "PostImportHook" in json.loads(with_us.stdout)["finders"]


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_isolated_pythons_are_untouched(image: Path, option: str) -> None:
    done = report(option, JOULEPATH_SOCKET="/nowhere", JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    assert "joulepath_trainer" not in done["modules"]
    assert "PostImportHook" not in done["finders"]
