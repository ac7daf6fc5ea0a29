"""Files made once: made in a temporary folder, renamed when complete, guarded by a lock file.

A reader sees nothing or all of it; two runs at once make it once; a run that is killed leaves a temporary folder that
the next one clears. The names carry a hash of what determines the content, so nothing here is ever out of date.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

__all__ = ["content_hash", "kept", "locked"]


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, alone or `shared`; the kernel frees it when the process ends, however it ends.

    Raises:
        BlockingIOError: Another holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"waiting for another run that holds {path}", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make(temporary folder)` if it isn't there yet."""
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            make(partial)
            partial.rename(folder)
    return folder


def content_hash(parts: Iterable[str | bytes | Path]) -> str:
    """Twelve hex digits for these texts and files' contents, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()[:12]
