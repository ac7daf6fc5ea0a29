"""`joulepath-warden`: the process of a node that gives clocks back."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulepath_warden.clocks import site_clocks
from joulepath_warden.driver import Driver, DriverError
from joulepath_warden.journal import Journal
from joulepath_warden.lock import Lock
from joulepath_warden.logs import Log
from joulepath_warden.options import Options
from joulepath_warden.resets import Resets
from joulepath_warden.warden import Warden

__all__ = ["main"]

log = logging.getLogger("joulepath_warden")

_LOCK: Final = "warden.lock"
_LOOK_AGAIN_S: Final = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT, or once; the exit status."""
    options = _options().parse_args(arguments)
    told = Log(options.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    driver = Driver(options.site_clocks)
    try:
        lock = Lock(options.state_dir / _LOCK)
        if options.reset_all:
            return _reset_all(lock, driver, options)
        if not lock.wait("another warden", stop, options.limit if options.once else None):
            return 0
        warden = Warden(options.state_dir, driver)
        if options.once:
            if not warden.clear(options.limit):
                log.error("not reset within %.0f s: %s", options.limit, _names(warden))
            return 0
        done = warden.serve(stop.is_set, options.grace, told.descriptor)
    except OSError as error:
        log.error("no clock can be leased: %s; every GPU is reset", error)
        _reset_gpus(driver, options.limit)
        return 0 if options.once else 1
    log.info("every clock is given back" if done else f"may still be locked: {_names(warden)}")
    return 0 if done else 1


def _names(warden: Warden) -> str:
    return ", ".join(warden.in_doubt) or "GPUs that NVML doesn't show"


def _reset_all(lock: Lock, driver: Driver, options: argparse.Namespace) -> int:
    if not lock.take():
        log.error(
            "a warden (%s) holds %s and resets by itself what is in doubt: to reset by hand, keep agents off this node "
            "first (kubectl label node NAME nvidia.com/gpu.present-, or helm uninstall)",
            lock.holder,
            lock.path,
        )
        return 1
    left = _reset_gpus(driver, options.limit)
    if left is None:
        log.error("nothing was reset")
        return 1
    journal = Journal(options.state_dir)
    journal.add(*left)
    journal.remove(*(journal.entries - left))
    if left:
        log.error("may still be locked: %s", ", ".join(sorted(left)))
    return 1 if left else 0


def _reset_gpus(driver: Driver, limit_s: float) -> frozenset[str] | None:
    """Resets every GPU that NVML shows; those that weren't within the time, or None where NVML doesn't show all."""
    try:
        gpus, unread = driver.gpus()
    except DriverError as error:
        log.error("%s", error)
        return None
    changed = threading.Event()
    resets = Resets(driver.reset, changed.set)
    for uuid in gpus:
        resets.ask(uuid)
    done: set[str] = set()
    deadline_s = time.monotonic() + limit_s
    while done != gpus and time.monotonic() < deadline_s:
        changed.wait(_LOOK_AGAIN_S)
        changed.clear()
        for uuid in resets.take_done():
            done.add(uuid)
            log.info("at default clocks: %s", uuid)
    for what in unread:
        log.error("%s", what)
    return None if unread else gpus - done


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joulepath-warden",
        description="Gives the clocks of one node's GPUs back when its agent doesn't. Options are also read from the "
        "environment, by the names in brackets.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="reset what is in doubt and exit with 0, done or not")
    what.add_argument("--reset-all", action="store_true", help="reset every GPU of the node and clear the journal")
    take = Options(parser).take
    take("--state-dir", "JOULEPATH_STATE_DIR", "/var/lib/joulepath", Path, "folder of journal, lock file and socket")
    site = "LOW,HIGH in MHz: clocks that this site locks its GPUs to, restored on every reset"
    take("--site-clocks", "JOULEPATH_SITE_CLOCKS", "", site_clocks, site)
    take("--grace", "JOULEPATH_GRACE", "28", float, "seconds after SIGTERM until it gives up")
    take("--limit", "JOULEPATH_WARDEN_LIMIT", "15", float, "seconds for --once or --reset-all")
    take("--log-level", "JOULEPATH_LOG_LEVEL", "info", str, "debug, info, warning or error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
