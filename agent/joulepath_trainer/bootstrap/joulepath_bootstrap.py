"""Runs at the start of every Python process of a training pod, since this folder is on its PYTHONPATH.

It does three things and leaves no trace of itself in `sys.path`:

1. restores what the process would have of PYTHONPATH without us;
2. installs the import hook of `joulepath_trainer` (nothing of torch or of ours is imported for it), or where this
   Python is too old for the trainer, what tells the agent so;
3. runs the module that the one of this folder shadows, `sitecustomize` in general. It comes last, so that what it
   raises reaches Python as it would without us; so does that there is none.

Most processes that run this are not training processes, and they run whatever Python they like. So it imports nothing
that Python has not imported already, and every Python from 2.7 on can read this folder: types stand in comments.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["begin"]

_NEEDED = (3, 10)
"""The oldest Python that the trainer runs on."""
_PATH_FILE = "/joulepath-image/pythonpath"
"""Where the webhook has the image's PYTHONPATH written down; a script may hand on no variable that says so."""
_HERE = os.path.dirname(os.path.abspath(__file__))
# Not through a link that may lead to another release's files while this process runs.
_FOLDER = os.path.realpath(_HERE)
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(_FOLDER))


def begin(name):
    # type: (str) -> None
    """Does all of that, for the module of that name."""
    _attempt("restoring the image's PYTHONPATH", _restore_path)
    _attempt("installing the hook", _install_hook)
    ours = sys.modules.pop(name)  # held until the end: Python 2 empties a module that nobody holds
    __import__(name)
    del ours


def _in_our_place(value, own):
    # type: (str, str | None) -> list[str]
    """The entries that belong in PYTHONPATH where it has this folder, and don't stand there.

    What was appended or prepended since the container began (`export PYTHONPATH=$PYTHONPATH:/x`) stands beside this
    folder, and would stand beside what the container had without us. If that was nothing, it would stand beside an
    empty entry, which means the working directory.

    Args:
        value: Of PYTHONPATH, as it is.
        own: What the container had without us; None where that has stood behind this folder from the beginning.
    """
    entries = value.split(os.pathsep)
    if own is None or _HERE not in entries or (not own and len(entries) == 1):
        return []
    theirs = own.split(os.pathsep)
    behind = entries[entries.index(_HERE) + 1 :]
    return [] if behind[: len(theirs)] == theirs else theirs


def _restore_path():
    # type: () -> None
    """Puts into `sys.path`, in the place of this folder, what belongs there, and so for child processes."""
    places = [at for at, entry in enumerate(sys.path) if isinstance(entry, str) and _absolute(entry) == _HERE]
    for at in reversed(places):
        del sys.path[at]
    own, value = _own_value(), os.environ.get("PYTHONPATH", "")
    missing = _in_our_place(value, own)
    if not places or not missing:
        return
    if own:
        os.environ["PYTHONPATH"] = value.replace(_HERE, os.pathsep.join([_HERE, own]), 1)
    # Python has made the entries of PYTHONPATH absolute, and dropped those that it had met before.
    before, behind = sys.path[: places[0]], sys.path[places[0] :]
    for entry in map(_absolute, missing):
        if entry not in before:
            before.append(entry)
    sys.path[:] = before + [entry for entry in behind if entry not in before]


def _own_value():
    # type: () -> str | None
    file = os.environ.get("JOULEPATH_IMAGE_PYTHONPATH_FILE", _PATH_FILE)
    if not os.path.exists(file):  # nobody may have written it
        return None
    with open(file, "rb") as stream:
        value = stream.read().rstrip(b"\n")
    return value if isinstance(value, str) else os.fsdecode(value)


def _absolute(entry):
    # type: (str) -> str
    """As Python's `site` makes it, also where the working directory is gone."""
    try:
        return os.path.abspath(entry)
    except Exception:
        return entry


def _install_hook():
    # type: () -> None
    socket_path = os.environ.get("JOULEPATH_SOCKET")
    if not socket_path:
        return
    if sys.version_info >= _NEEDED:
        _imported(_PACKAGE_ROOT, "joulepath_trainer.hook").install(socket_path)
    else:
        _imported(_FOLDER, "joulepath_old_python").install(socket_path, _NEEDED)


def _imported(folder, name):
    # type: (str, str) -> Any
    sys.path.insert(0, folder)
    try:
        __import__(name)
    finally:
        sys.path.remove(folder)
    return sys.modules[name]


def _attempt(what, action):
    # type: (str, Callable[[], None]) -> None
    try:
        action()
    except Exception as error:
        sentence = "joulepath: %s failed, training goes on without: %s: %s\n"
        try:
            sys.stderr.write(sentence % (what, type(error).__name__, error))
        except Exception:  # where there is no standard error
            pass
