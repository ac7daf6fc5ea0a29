"""What is built once: complete or absent, made by one of many, and known by its content. No cluster is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from real_cluster import until
from real_cluster.images import context_files
from real_cluster.kept import content_hash, kept
from real_cluster.processes import Processes

_LAB = Path(__file__).parents[2] / "lab"


def test_a_folder_is_made_once_by_many_at_a_time(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.05)
        (folder / "file").write_text("whole")

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: kept(tmp_path / "thing", make), range(4)))
    assert len(made) == 1
    assert {(folder / "file").read_text() for folder in folders} == {"whole"}


def test_what_failed_half_way_is_not_there_and_is_made_anew(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        kept(tmp_path / "thing", fail)
    assert not (tmp_path / "thing").exists()
    folder = kept(tmp_path / "thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_the_hash_tells_where_a_part_ends() -> None:
    assert content_hash(["ab", "c"]) != content_hash(["a", "bc"])


def test_a_process_outlives_who_started_it_and_is_known_again(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from real_cluster.processes import Processes;"
        "Processes(Path(sys.argv[1]), Path('/')).start('sleeper', ['sleep', 'infinity'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(_LAB)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    processes = Processes(tmp_path, Path("/"))
    pid = processes.pid("sleeper")
    try:
        assert pid is not None
        assert not processes.start("sleeper", ["sleep", "infinity"])
        assert processes.pid("sleeper") == pid
    finally:
        processes.stop("sleeper")
    assert processes.pid("sleeper") is None


def test_a_process_whose_record_was_lost_is_found_by_its_mark(tmp_path: Path) -> None:
    processes = Processes(tmp_path, Path("/"))
    processes.start("lost", ["sh", "-c", f"touch {tmp_path}/runs; sleep 3600 & sleep 3600"])
    until("the process", 5, (tmp_path / "runs").exists)
    pid = processes.pid("lost")
    (tmp_path / "processes" / "lost.json").rename(tmp_path / "record")
    processes.end_all()
    (tmp_path / "record").rename(tmp_path / "processes" / "lost.json")
    assert pid is not None
    assert processes.pid("lost") is None


def test_a_build_sees_what_the_dockerfile_copies_and_git_does_not_ignore(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM a AS b\nCOPY --chown=1:1 pyproject.toml \\\n  package /app/\nCOPY --from=b /x /y\nRUN COPY nothing here\n"
    )
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    for name in ("pyproject.toml", "package/code.py", "package/__pycache__/code.pyc", "other"):
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert context_files(tmp_path / "Dockerfile", tmp_path) == (Path("package/code.py"), Path("pyproject.toml"))


def test_without_root_it_says_at_once_what_is_missing_and_ends_with_2(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-user=1000", sys.executable, "-m", "real_cluster", "up"]
    environment = {**os.environ, "PYTHONPATH": str(_LAB), "JOULEPATH_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Not root: run it again as root" in done.stderr
