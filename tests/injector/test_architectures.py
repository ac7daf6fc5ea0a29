"""What of ours comes into a training pod runs on any processor, and images are of whichever they are built on."""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from joulepath_injector.folders import TrainerFiles, trainer_package
from real_cluster import images

REPOSITORY: Final = Path(__file__).parents[2]
DOCKERFILE: Final = REPOSITORY / "Dockerfile"
ELF: Final = b"\x7fELF"
MACHINE: Final = slice(18, 20)
"""Where an ELF file says whose it is."""
ARCHITECTURE: Final = re.compile(r"amd64|x86[-_]64|i386|arm64|aarch64|ppc64|s390x|riscv|--platform", re.IGNORECASE)


def test_the_files_that_the_injector_puts_on_the_node_are_sources_and_nothing_compiled(tmp_path: Path) -> None:
    there = TrainerFiles(trainer_package(), tmp_path / "trainer").place()
    files = [one for one in there.rglob("*") if one.is_file()]
    assert files
    assert {one.suffix for one in files} == {".py"}
    assert not [one for one in files if one.read_bytes().startswith(ELF)]
    assert not [one for one in there.rglob("*") if one.is_symlink()]


@pytest.mark.parametrize("path", ["Dockerfile", "charts/joulepath/values.yaml"])
def test_nothing_that_makes_or_places_an_image_of_ours_names_an_architecture(path: str) -> None:
    assert not ARCHITECTURE.findall((REPOSITORY / path).read_text())


@pytest.mark.cluster
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", re.findall(r"(?m)^FROM .* AS (operator|agent|trainer)$", DOCKERFILE.read_text()))
def test_all_that_is_compiled_in_an_image_is_of_the_processor_that_it_was_built_on(part: str) -> None:
    built = images.build(DOCKERFILE, part, f"joulepath.local/{part}:architectures")
    with tarfile.open(built) as outer:
        layers = [outer.extractfile(one) for one in outer.getmembers() if one.name.endswith(".tar")]
        found = {machine for layer in layers if layer is not None for machine in machines(layer)}
    assert found == {Path(sys.executable).read_bytes()[MACHINE]}


def machines(layer: IO[bytes]) -> Iterator[bytes]:
    """Of each ELF file."""
    with tarfile.open(fileobj=layer) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            head = file.read(MACHINE.stop) if file is not None else b""
            if head.startswith(ELF):
                yield head[MACHINE]
