"""Runs at the start of every Python process of a training pod, since this folder is on its PYTHONPATH.

It does three things and leaves no trace of itself in `sys.path`:

1. restores the image's own `ENV PYTHONPATH`, which a PYTHONPATH in the pod's spec hides. Its value is in the file
   that `JOULEPATH_IMAGE_PYTHONPATH_FILE` names, if it was written;
2. installs the import hook of `joulepath_trainer` (nothing of torch or of ours is imported for it);
3. runs the `sitecustomize` that this one shadows. It comes last, so that what it raises reaches Python as it would
   without us.

Most processes that run this are not training processes: it imports nothing that Python has not imported already.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING: Final = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__: list[str] = []

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
# Not through a link that may lead to another release's files while this process runs.
_PACKAGE_ROOT: Final = os.path.dirname(os.path.dirname(os.path.realpath(_HERE)))


def _leave_path() -> int:
    """Takes this folder off `sys.path`; returns the place where the image's entries belong."""
    places = [at for at, entry in enumerate(sys.path) if os.path.abspath(entry) == _HERE]
    for at in reversed(places):
        del sys.path[at]
    return places[0] if places else 0


def _restore_path() -> None:
    """Puts the entries of the image's PYTHONPATH into `sys.path` and into the environment of child processes."""
    place = _leave_path()
    file = os.environ.get("JOULEPATH_IMAGE_PYTHONPATH_FILE")
    if not file or not os.path.exists(file):
        return
    with open(file, "rb") as stream:
        value = os.fsdecode(stream.read()).rstrip("\n")
    if not value:
        return
    present = os.environ.get("PYTHONPATH", "")
    inherited = present.split(os.pathsep) if present else []
    missing = [entry for entry in value.split(os.pathsep) if entry not in inherited]
    os.environ["PYTHONPATH"] = os.pathsep.join(inherited + missing)
    # Python makes the entries of PYTHONPATH absolute before it gets here; an empty one means the working directory.
    absolute = [os.path.abspath(entry) for entry in missing]
    sys.path[place:place] = [entry for entry in dict.fromkeys(absolute) if entry not in sys.path]


def _install_hook() -> None:
    if not os.environ.get("JOULEPATH_SOCKET"):
        return
    sys.path.insert(0, _PACKAGE_ROOT)
    try:
        from joulepath_trainer.hook import install
    finally:
        sys.path.remove(_PACKAGE_ROOT)
    install(os.environ["JOULEPATH_SOCKET"])


def _run_shadowed() -> None:
    ours = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


def _attempt(name: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:
        sys.stderr.write(f"joulepath: {name} failed, training goes on without: {type(error).__name__}: {error}\n")


_attempt("restoring the image's PYTHONPATH", _restore_path)
_attempt("installing the hook", _install_hook)
_run_shadowed()
