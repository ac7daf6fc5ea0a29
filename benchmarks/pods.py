"""Seconds until default clocks where pods and nodes fail, on the test cluster; writes benchmarks/results/pods.json.

    .venv/bin/python benchmarks/pods.py

The tests of faults on real kubelets (tests/end_to_end) are run, and what they saw is kept: from the moment at which
nobody held the clocks any more to the driver's order of default ones, for each fault that returns them.
The training went on in each: the tests ask for that, and one that fails is no figure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = ("tests/end_to_end/test_successors.py", "tests/end_to_end/test_trouble.py")
RETURNED: Final = re.compile(r"default clocks on .+ within ([\d.]+) s")


def figures(results: Path) -> Iterator[tuple[str, list[float]]]:
    """Each test that passed, and the seconds that it saw."""
    for case in ElementTree.parse(results).iter("testcase"):
        if not {"failure", "error", "skipped"} & {one.tag for one in case}:
            said = "".join(one.text or "" for one in case.iter("system-out"))
            yield case.attrib["name"], [float(one) for one in RETURNED.findall(said)]


def main() -> int:
    """Prints a line for each fault, and writes all; the tests' exit status."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cluster", *TESTS, f"--junitxml={results}"]
        status = subprocess.run([*command, "-o", "junit_logging=system-out"], cwd=ROOT, check=False).returncode
        seen = {name: {"default_within_s": seconds} for name, seconds in figures(results)}
    for name, one in seen.items():
        told = ", ".join(f"{seconds:.3f} s" for seconds in one["default_within_s"]) or "not timed"
        print(f"{name:110} {told}")
    if not status:
        (ROOT / "benchmarks/results/pods.json").write_text(json.dumps(seen, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
