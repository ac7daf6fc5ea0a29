"""The Pythons of this machine, one of each release: training images have theirs, and whatever else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

__all__ = ["NEEDED", "PYTHONS", "Python", "available", "found"]

NEEDED: Final = (3, 10)
"""The oldest that the trainer runs on."""
PYTHONS: Final = ("2.7", *(f"3.{minor}" for minor in range(6, 15)), "pypy")
"""All that a training pod may have."""
_ASKED: Final = "import sys; print('%d.%d' % sys.version_info[:2] + ' pypy' * hasattr(sys, 'pypy_version_info'))"


@dataclass(frozen=True, slots=True)
class Python:
    """One of them."""

    path: str
    version: tuple[int, int]
    is_pypy: bool

    @property
    def is_old(self) -> bool:
        """Whether the trainer can't run on it."""
        return self.version < NEEDED


def found(name: str) -> Python:
    """The Python of that name; skips the test where this machine has none."""
    python = available().get(name)
    if python is None:
        pytest.skip(f"there is no Python {name} on this machine")
    return python


@cache
def available() -> dict[str, Python]:
    """All that are found, by name."""
    named = [shutil.which("pypy3" if name == "pypy" else f"python{name}") for name in PYTHONS]
    installed = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/*/bin/python"))
    known: dict[str, Python] = {}
    for path in (os.path.realpath(sys.executable), *filter(None, named), *map(str, installed)):
        done = subprocess.run([path, "-c", _ASKED], capture_output=True, text=True, check=False)
        if match := re.fullmatch(r"(\d+)\.(\d+)( pypy)?\n", done.stdout):
            version, is_pypy = (int(match[1]), int(match[2])), bool(match[3])
            name = "pypy" if is_pypy else f"{match[1]}.{match[2]}"
            known.setdefault(name, Python(path, version, is_pypy))
    return known
