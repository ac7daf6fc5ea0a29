"""The trainer runs in other people's processes: it brings nothing along and imports nothing of theirs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import joulepath_trainer
from tests.trainer.pythons import PYTHONS, found

HERE = Path(joulepath_trainer.__file__).parent


def imported(file: Path) -> Iterator[str]:
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_the_trainer_imports_itself_and_the_standard_library_only() -> None:
    files = sorted(HERE.rglob("*.py"))
    assert len(files) > 10
    foreign = {(file.name, name) for file in files for name in imported(file) if name not in sys.stdlib_module_names}
    assert {name for _, name in foreign} == {"joulepath_trainer", "joulepath_bootstrap"}, foreign


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHONS)
def test_a_python_runs_the_trainer_unless_it_is_too_old(name: str) -> None:
    python = found(name)
    modules = [".".join(file.relative_to(HERE.parent).with_suffix("").parts) for file in HERE.rglob("*.py")]
    code = f"import {', '.join(one for one in modules if '.bootstrap.' not in one and '__init__' not in one)}"
    done = subprocess.run([python.path, "-B", "-c", code], cwd=HERE.parent, capture_output=True, check=False)
    assert (done.returncode != 0) == python.is_old, done.stderr.decode()
