"""What users build by `docker build .` has what the Dockerfiles copy. (The lab's own builds read no .dockerignore.)"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from real_cluster.images import context_files

ROOT: Final = Path(__file__).parents[2]
DOCKERFILES: Final = ("Dockerfile", "examples/01-pytorchjob/Dockerfile", "examples/02-megatron/Dockerfile")


def sent(file: Path) -> bool:
    """Whether a file goes to the builder: the last line that names it, or a folder above it, decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(one.match(pattern) for one in (file, *file.parents)):
            kept = line.startswith("!")
    return kept


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_a_dockerfile_copies_is_not_ignored(dockerfile: str) -> None:
    files = context_files(ROOT / dockerfile, ROOT)
    assert files
    assert [file for file in files if not sent(file)] == []
    assert not sent(Path("docs/architecture.md"))
