"""`joulepath-injector`: the process of a node that puts the trainer into containers, or only its files on the node."""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulepath_injector.folders import PodFolders, TrainerFiles, trainer_package
from joulepath_injector.injector import Injector
from joulepath_injector.pods import Pods
from joulepath_injector.runtime import Sessions
from joulepath_injector.serving import Server
from joulepath_injector.words import FOLDER
from joulepath_warden.lock import Lock
from joulepath_warden.logs import Log
from joulepath_warden.options import Options

__all__ = ["main"]

log = logging.getLogger("joulepath_injector")

_LOCK: Final = "injector.lock"
_LIMIT_S: Final = 60.0
"""For a program that does nothing, on a node that is busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit status."""
    options = _options().parse_args(arguments)
    Log(options.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # whatever waits: the runtime goes on without
    own, files = options.state_dir / FOLDER, options.state_dir / "trainer"
    if options.files_only is not None:
        _put_there(own, files, options.files_only)
        return 0
    try:
        _lock(own)
        trainer = TrainerFiles(trainer_package(), files)
        pods = Pods()
        Server(own, pods).start()
    except OSError as error:
        log.error("%s", error)
        return 1
    try:
        trainer.check()
    except OSError as error:
        log.error("the trainer's files are not on the node, it is tried again for each container: %s", error)
    sessions = Sessions(options.nri_socket, Injector(pods, trainer, PodFolders(options.socket_dir / "pods")), pods)
    while True:
        time.sleep(sessions.serve())


def _lock(own: Path) -> None:
    """Waits until no other injector of this node writes files."""
    Lock(own / _LOCK).wait("another injector", threading.Event())


def _put_there(own: Path, files: Path, busybox: Path) -> None:
    """For pods that have the trainer by a volume: an init container of theirs runs that busybox, so it has to run.

    Where that can't be (a disk that is full, read-only or mounted with noexec), it is only said: what sets and resets
    clocks starts after us, and needs none of it.
    """
    try:
        trainer = TrainerFiles(trainer_package(), files, busybox)
        _lock(own)
        trainer.check()
        _try(trainer.place() / busybox.name)
        trainer.lead()
    except (OSError, subprocess.SubprocessError) as error:
        log.error("the trainer's files can't be put on the node: %s", error)
        try:
            _try(files / "current" / busybox.name)
        except (OSError, subprocess.SubprocessError) as missing:
            log.error("until they are there, pods that mount them may not start on this node: %s", missing)
        else:
            log.warning("pods that mount them go on with those that were there before")


def _try(busybox: Path) -> None:
    subprocess.run([busybox, "true"], check=True, timeout=_LIMIT_S)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joulepath-injector",
        description="Puts the trainer into the containers of one node that the agent names, as a plugin of the "
        "container runtime (NRI). Options are also read from the environment, by the names in brackets.",
    )
    take = Options(parser).take
    take("--nri-socket", "JOULEPATH_NRI_SOCKET", "/var/run/nri/nri.sock", Path, "socket of the container runtime")
    take("--state-dir", "JOULEPATH_STATE_DIR", "/var/lib/joulepath", Path, "folder of the trainer's files and our own")
    take("--socket-dir", "JOULEPATH_SOCKET_DIR", "/run/joulepath", Path, "folder of the pods' folders")
    parser.add_argument(
        "--files-only",
        type=Path,
        metavar="BUSYBOX",
        help="put the trainer's files and this static busybox on the node, for pods that mount them, and end",
    )
    take("--log-level", "JOULEPATH_LOG_LEVEL", "info", str, "debug, info, warning or error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
