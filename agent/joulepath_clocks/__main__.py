"""`joulepath-clocks`: the process of a node that sets clocks."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from joulepath_clocks.clocks import Clocks, Paths
from joulepath_clocks.gpus.foreign import OnForeignClock
from joulepath_clocks.gpus.nvml import Nvml
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.priority import prefer_process
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S
from joulepath_trainer.wire.protocol import SOCKET_PATH
from joulepath_warden.clocks import site_clocks
from joulepath_warden.lock import Lock
from joulepath_warden.logs import Log
from joulepath_warden.options import Options, seconds

__all__ = ["main"]

log = logging.getLogger("joulepath_clocks")

_TURN_S: Final = 1.0
_BEGINS_S: Final = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit status."""
    options = _options().parse_args(arguments)
    written = Log(options.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    prefer_process()
    paths = Paths(options.socket, options.state_dir, options.proc)
    try:
        if not Lock(paths.lock).wait("another process of clocks", stop):
            return 0
        faulthandler.dump_traceback_later(_BEGINS_S, exit=True, file=written.descriptor)  # put off once it serves
        clocks = Clocks(
            Nvml(options.site_clocks),
            CgroupIdentity(options.proc),
            paths,
            look_for_gpus_s=options.look_for_gpus,
            on_foreign_clock=options.on_foreign_clock,
            budget=replace(BUDGET, silence_s=options.silence_limit, most_slowdown=options.max_slowdown / 100),
            plan_time_to_live_s=options.plan_time_to_live,
            log_descriptor=written.descriptor,
        )
    except OSError as error:
        log.error("%s", error)
        return 1
    clocks.start()
    log.info("ranks are served at %s", options.socket)
    while not stop.wait(_TURN_S) and not clocks.hopeless:
        pass
    if not stop.is_set():
        log.error("NVML gives no hope here: ending, to be started anew")
    released = clocks.stop(options.grace)
    log.info("clocks released" if released else "a clock could not be released; the warden goes on")
    return 0 if released and stop.is_set() else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joulepath-clocks",
        description="Sets the clocks of one node's GPUs as the plans of its jobs say, which its agent tells it. "
        "Options are also read from the environment, by the names in brackets.",
    )
    take = Options(parser).take
    take("--socket", "JOULEPATH_SOCKET", SOCKET_PATH, Path, "socket that training processes connect to")
    take("--state-dir", "JOULEPATH_STATE_DIR", "/var/lib/joulepath", Path, "folder of the sockets of warden and agent")
    take("--proc", "JOULEPATH_PROC", "/host/proc", Path, "the host's /proc")
    site = "LOW,HIGH in MHz: clocks that this site locks its GPUs to, restored on every reset"
    take("--site-clocks", "JOULEPATH_SITE_CLOCKS", "", site_clocks, site)
    take("--look-for-gpus", "JOULEPATH_LOOK_FOR_GPUS", "30", float, "seconds between two looks until all are read")
    silence = "seconds without a marker, at most, after which a rank's clock is released"
    take("--silence-limit", "JOULEPATH_SILENCE_LIMIT", str(BUDGET.silence_s), seconds(2, 3600), silence)
    foreign = "where somebody else sets a leased clock: reassert (order it again, up to three times a minute) or yield"
    take("--on-foreign-clock", "JOULEPATH_ON_FOREIGN_CLOCK", "reassert", OnForeignClock, foreign)
    life = "seconds for which plans are played without news of them from the API server"
    lives = seconds(60, 86400)
    take("--plan-time-to-live", "JOULEPATH_PLAN_TIME_TO_LIVE", str(DEFAULT_TIME_TO_LIVE_S), lives, life)
    slowdown = "percent that any plan may let an iteration last longer than at default clocks, whatever it says"
    take("--max-slowdown", "JOULEPATH_MAX_SLOWDOWN", f"{BUDGET.most_slowdown * 100:g}", _percent, slowdown)
    take("--grace", "JOULEPATH_GRACE", "28", float, "seconds after SIGTERM until it gives up")
    take("--log-level", "JOULEPATH_LOG_LEVEL", "info", str, "debug, info, warning or error")
    return parser


def _percent(text: str) -> float:
    percent = float(text)
    if not 0 <= percent <= 50:
        raise argparse.ArgumentTypeError(f"it must be from 0 to 50 percent, it is {text}")
    return percent


if __name__ == "__main__":
    sys.exit(main())
