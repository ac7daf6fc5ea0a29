"""What the processes of a node load: memory is taken on every node, so libraries that they can do without stay out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED = "import json, sys; import {}; print(json.dumps(sorted(sys.modules)))"
OPENSSL = {"_hashlib", "_ssl"}
"""Each loads libcrypto, 3.5 MiB."""


@pytest.mark.parametrize(
    ("part", "unneeded"),
    [
        ("clocks", OPENSSL | {"numpy", "pydantic"}),
        ("warden", OPENSSL | {"numpy", "pydantic"}),
        ("injector", OPENSSL | {"numpy", "pydantic", "pynvml"}),
        ("agent", {"kubernetes", "requests", "yaml", "grpc"}),
    ],
)
def test_a_process_of_a_node_loads_nothing_that_it_does_not_need(part: str, unneeded: set[str]) -> None:
    command = [sys.executable, "-c", LOADED.format(f"joulepath_{part}.__main__")]
    loaded = set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert not loaded & unneeded
