"""Rooms for the tests of the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.agent.room import Launcher, Room
from virtual_gpus.fixtures import MakeVirtualGpus


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """What starts agents and training processes."""
    started = Launcher()
    yield started
    started.close()


@pytest.fixture
def room(launcher: Launcher, make_virtual_gpus: MakeVirtualGpus, tmp_path: Path) -> Iterator[Callable[..., Room]]:
    """Factory: `room(gpu_model=None, **options of the virtual GPUs)`."""
    with ExitStack() as stack:
        yield lambda gpu_model=None, **options: Room(launcher, make_virtual_gpus(gpu_model, **options), tmp_path, stack)
