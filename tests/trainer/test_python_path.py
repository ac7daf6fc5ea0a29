"""Whatever a script does with PYTHONPATH, the Pythons that it starts resolve modules in the order that they would."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_injector.adjust import adjustment
from joulepath_injector.nri.messages import Container
from joulepath_injector.places import BOOTSTRAP as BOOTSTRAP_OF_POD
from joulepath_operator.injection.patch import inject
from tests.trainer.conftest import BOOTSTRAP
from tests.trainer.pythons import Python, available, found

GPUS: Final = ("nvidia.com/gpu",)
ENTRIES: Final = ("/a", "/b", "/a/b/../c", "", ".", "relative", "/usr/lib/python3")
EDITS: Final = (
    *("$PYTHONPATH", "$PYTHONPATH:/x", "/x:$PYTHONPATH", "/x:$PYTHONPATH:/y:/a", "$PYTHONPATH:", ":$PYTHONPATH"),
    *("$PYTHONPATH::/x", "/x/:$PYTHONPATH:.", "$PYTHONPATH:$PYTHONPATH", "/x:$PYTHONPATH:/y:$PYTHONPATH", "/x"),
)
"""What a script may export as PYTHONPATH."""
NESTED: Final = """
import json, subprocess, sys
print(json.dumps(sys.path))
sys.stdout.flush()
if sys.argv[1:]:
    script = 'export PYTHONPATH="%s"; shift; exec "$PY" -c "$NESTED" "$@"' % sys.argv[1]
    subprocess.check_call(["sh", "-c", script, "sh"] + sys.argv[1:])
"""
"""Tells its path, and has a script begin the next one after its edit."""


def by_node(own: str) -> Mapping[str, str]:
    """The environment of a container that the node has injected."""
    env = (f"PYTHONPATH={own}",) if own else ()
    return adjustment(Container("sandbox", "pytorch", env), Path("/files"), Path("/pod")).env


def patched(container: Mapping[str, object]) -> dict[str, str]:
    """The environment of a container that the webhook has injected."""
    limits = {"limits": {"nvidia.com/gpu": 1}}
    made = inject({"spec": {"containers": [{"name": "pytorch", "image": "i", "resources": limits, **container}]}}, GPUS)
    (containers,) = (one["value"] for one in made.patch if one["path"] == "/spec/containers")
    return {one["name"]: one["value"].replace("/joulepath/current/", "/joulepath/") for one in containers[0]["env"]}


def by_webhook(own: str, file: Path) -> Mapping[str, str]:
    """Where it is the image that has that PYTHONPATH."""
    file.write_text(own)
    return patched({}) | {"JOULEPATH_IMAGE_PYTHONPATH_FILE": str(file)}


def by_webhook_with_its_own(own: str, _: Path) -> Mapping[str, str]:
    """Where it is the pod."""
    return patched({"env": [{"name": "PYTHONPATH", "value": own}]})


WAYS: Final = {"node": lambda own, _: by_node(own), "image": by_webhook, "pod": by_webhook_with_its_own}


def paths(python: Python, edits: Sequence[str], folder: Path, environment: Mapping[str, str]) -> list[list[str]]:
    """`sys.path` of Pythons that begin after the container's first script, after the next one in a child, and so on."""
    given = {name: value.replace(BOOTSTRAP_OF_POD, str(BOOTSTRAP)) for name, value in environment.items()}
    done = subprocess.run(
        ["sh", "-c", f'export PYTHONPATH="{edits[0]}"; exec "$PY" -c "$NESTED" "$@"', "sh", *edits[1:]],
        env={"PATH": os.environ["PATH"], "PY": python.path, "NESTED": NESTED, "PYTHONDONTWRITEBYTECODE": "1", **given},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working")


pythons = st.sampled_from([python for python in available().values() if python.version > (3, 0)])
values = st.lists(st.sampled_from(ENTRIES), max_size=3).map(":".join)
edits = st.lists(st.sampled_from(EDITS), min_size=1, max_size=3)


@pytest.mark.slow
@given(python=pythons, own=values, edits=edits, way=st.sampled_from(sorted(WAYS)))
def test_modules_are_found_in_the_order_of_a_process_without_us(
    folder: Path, python: Python, own: str, edits: list[str], way: str
) -> None:
    with_us = paths(python, edits, folder, WAYS[way](own, folder / "pythonpath"))
    assert with_us == paths(python, edits, folder, {"PYTHONPATH": own} if own else {})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["2.7", "3.11"])
@pytest.mark.parametrize("edit", ["$PYTHONPATH:/x", "/x:$PYTHONPATH"])
@pytest.mark.parametrize("own", ["", "/a:/b"])
def test_so_they_are_after_what_scripts_do_most(folder: Path, way: str, name: str, edit: str, own: str) -> None:
    with_us = paths(found(name), [edit, edit], folder, WAYS[way](own, folder / "pythonpath"))
    assert with_us == paths(found(name), [edit, edit], folder, {"PYTHONPATH": own} if own else {})


@pytest.mark.parametrize("own", ["", "/a"])
def test_a_script_that_spares_an_empty_entry_gets_one_where_there_was_no_path(folder: Path, own: str) -> None:
    """It sees ours, and can't be told from one that doesn't care. A working directory too many stops fewer trainings
    than one that is missing."""
    sparing = "${PYTHONPATH:+$PYTHONPATH:}/x"
    with_us = paths(found("3.11"), [sparing], folder, by_node(own))[0]
    without = paths(found("3.11"), [sparing], folder, {"PYTHONPATH": own} if own else {})[0]
    assert with_us == ([without[0], str(folder), *without[1:]] if not own else without)
