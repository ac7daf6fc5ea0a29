"""The table of frameworks says what tests and benchmarks have seen."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import framework_table

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_rows_and_results() -> None:
    assert framework_table.PATH.read_text() == framework_table.text(), "write it anew: make reference"


def test_each_row_is_the_parameter_of_a_test_that_runs_it() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "tests/trainer/frameworks"]
    told = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = Counter(row.name for row in framework_table.ROWS)
    assert set(names.values()) == {1}
    run = told.stdout.replace("-", "]")
    assert [name for name in names if f"[{name.replace('-', ']')}]" not in run] == []
