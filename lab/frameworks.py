"""Training frameworks in several versions, for tests of what the trainer sees of them.

Each file of `locks/frameworks` is a virtual environment, made by uv when it is first asked for and kept in the cache by
its content. One whose Python this machine lacks can't be made: that is said, and a test of it skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["NoPythonError", "environment", "names", "variables"]

_LOCKS: Final = Path(__file__).resolve().parents[1] / "locks/frameworks"
_CACHE: Final = Path(os.environ.get("JOULEPATH_CACHE") or Path.home() / ".cache/joulepath")


class NoPythonError(Exception):
    """This machine has no interpreter of the version that a framework needs."""


def names(framework: str) -> tuple[str, ...]:
    """The environments with a framework, e.g. `megatron-0.16.1`, the oldest version first."""
    found = (one.stem for one in _LOCKS.glob(f"{framework}-*.in"))
    return tuple(sorted(found, key=lambda name: [int(part) for part in name.rpartition("-")[2].split(".")]))


def environment(name: str) -> Path:
    """The interpreter of an environment, which is made if it isn't there.

    Raises:
        NoPythonError: There is no interpreter to make it with.
    """
    lock = _LOCKS / f"{name}.txt"
    version = (_LOCKS / f"{name}.in").read_text().partition("# python ")[2].split()[0]
    base = _interpreter(version)
    digest = hashlib.sha256(lock.read_bytes() + str(base).encode()).hexdigest()[:12]
    folder = _CACHE / "frameworks" / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        python = folder / "bin/python"
        if not python.exists():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            uv = _uv()
            _run(uv, "venv", "-q", "--relocatable", "--python", str(base), str(making))
            target = ("--python", str(making / "bin/python"))
            _run(uv, "pip", "sync", "-q", "--require-hashes", "--compile-bytecode", *target, str(lock))
            making.rename(folder)
    return python


def variables(python: Path | str) -> dict[str, str]:
    """What processes of an interpreter are to have in their environment: what a framework compiles when it is first
    used is kept beside it. In the place that all share, each version would undo what another one has compiled."""
    return {"TORCH_EXTENSIONS_DIR": str(Path(python).parents[1] / "extensions")}


def _interpreter(version: str) -> Path:
    name = f"python{version}"
    kept = sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")))
    for place in filter(None, (shutil.which(name), *kept)):
        # A shim of pyenv stands for versions that it then doesn't start.
        tried = subprocess.run([place, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if tried.returncode == 0:
            return Path(tried.stdout.strip())
    raise NoPythonError(f"there is no {name} on PATH or among pyenv's versions")


def _uv() -> str:
    for place in (os.environ.get("UV"), shutil.which("uv"), *map(str, _CACHE.glob("uv-*/bin/uv"))):
        if place:
            return place
    raise FileNotFoundError("uv: run `make venv`, which fetches it")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
