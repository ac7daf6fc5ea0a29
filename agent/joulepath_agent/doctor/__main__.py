"""`joulepath-agent doctor`, or `python -m joulepath_agent.doctor`: examines the GPUs of this node."""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from joulepath_agent.doctor import board, pairs
from joulepath_agent.doctor.examination import Examination, why_busy
from joulepath_agent.doctor.hold import Hold, StoppedError
from joulepath_agent.doctor.load import LoadError
from joulepath_agent.doctor.record import Record, RecordError
from joulepath_agent.doctor.table import table
from joulepath_agent.doctor.verdicts import findings
from joulepath_clocks.gpus.leasing import Leasing
from joulepath_clocks.gpus.nvml import Gpu, GpuError
from joulepath_warden.clocks import site_clocks
from joulepath_warden.wire import DOCTOR_FOLDER

__all__ = ["main"]

log = logging.getLogger("joulepath_doctor")

_LIMIT_S: Final = 170.0
_TURN_S: Final = 0.1
_HANGS_S: Final = 10.0
_GRACE_S: Final = 12.0
"""After the limit or a signal, until threads that hang are left behind: the warden resets their GPUs."""
_SWITCH_INTERVAL_S: Final = 0.0005


class _Doctor:
    """All GPUs of a node, each examined by a thread of its own."""

    def __init__(self, gpus: Sequence[Gpu], options: argparse.Namespace) -> None:
        self._options = options
        self._command = shlex.split(options.load)
        self._holds: dict[str, Hold] = {}
        self._leasing = self._connect()
        holds = [Hold(gpu, self._leasing, leave_clocks=options.leave_clocks, pace=options.pace) for gpu in gpus]
        self._holds.update({hold.gpu.uuid: hold for hold in holds})
        self.examinations = [Examination(hold, self._command) for hold in holds]
        self.told = ""
        """Why it is to end, as a signal says."""
        self._ended, self._give_up_s = "", math.inf
        self._left: list[Examination] = []
        """Those whose thread hangs."""

    def end(self, why: str) -> None:
        """Has everything end."""
        if not self._ended:
            self._ended, self._give_up_s = why, time.monotonic() + _GRACE_S
        for hold in self._holds.values():
            hold.stop(why)

    def run(self) -> str:
        """Examines; why it ended before its time, or nothing."""
        deadline_s = time.monotonic() + self._options.limit
        self._leasing.start()
        try:
            self._wait_for([(one, one.run) for one in self.examinations], deadline_s)
            first = next((one for one in self.examinations if one.found.pairs and one not in self._left), None)
            if not self._ended:
                self._wait_for([(first or self.examinations[0], lambda: self._together(first))], deadline_s)
        finally:
            for examination in self.examinations:
                examination.close()
            # Clocks that couldn't be reset in the grace are the warden's now.
            self._leasing.stop()
        return self._ended

    def _together(self, first: Examination | None) -> None:
        """What takes the whole node, once no GPU is leased."""
        if first is not None and first.load is not None:
            first.load.ask("compute")
            self._leasing.stop()
            range_ = self._options.site_clocks
            site = f"{range_.low_mhz},{range_.high_mhz}" if range_ else ""
            first.check("killed", lambda: pairs.killed(first.hold, self._options.state_dir, site))
        for one in self.examinations:
            one.close()
            if one is not first:
                why = "measured on another GPU" if first else one.found.without.get("pairs", "no switch was measured")
                one.note("killed", why)
                one.note("collectives", why)
        if first is None:
            return
        self._reconnect()
        model = [one for one in self.examinations if one.found.pairs and one.hold.gpu.model == first.hold.gpu.model]
        holds = [one.hold for one in model]
        try:
            first.check("collectives", lambda: pairs.collectives(holds, self._command))
        finally:
            for hold in holds:
                hold.close()

    def _connect(self) -> Leasing:
        return Leasing(self._options.state_dir / DOCTOR_FOLDER, self._is_well, self._revoked)

    def _reconnect(self) -> None:
        self._leasing = self._connect()
        for hold in self._holds.values():
            hold.lessor = self._leasing
        self._leasing.start()

    def _is_well(self, uuid: str) -> bool:
        return self._holds[uuid].well(time.monotonic())

    def _revoked(self, uuid: str, why: str) -> None:
        self._holds[uuid].stop(why)

    def _wait_for(self, jobs: Sequence[tuple[Examination, Callable[[], None]]], deadline_s: float) -> None:
        """Until all are done; but for those that hang in NVML, and a grace after the end was asked for."""
        threads = [
            (one, threading.Thread(target=_run, args=(job,), name=one.hold.gpu.uuid, daemon=True)) for one, job in jobs
        ]
        for _, thread in threads:
            thread.start()
        while any(thread.is_alive() and one.hold.called_for_s(time.monotonic()) < _HANGS_S for one, thread in threads):
            if self.told:
                self.end(self.told)
            if time.monotonic() > deadline_s:
                self.end(f"it took longer than {self._options.limit:.0f} s (--limit)")
            if time.monotonic() > self._give_up_s:
                break
            time.sleep(_TURN_S)
        for one, thread in threads:
            if thread.is_alive():
                one.hold.stop("NVML doesn't answer")
                one.note("ended", "a call of NVML, or the load, doesn't return")
                self._left.append(one)


def _run(job: Callable[[], None]) -> None:
    with suppress(StoppedError):
        try:
            job()
        except (GpuError, LoadError) as error:
            log.error("%s", error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Examines and tells; 0 if a GPU was examined to the end."""
    options = _options().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("joulepath_clocks.gpus.leasing").setLevel(logging.CRITICAL)  # it speaks for an agent
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    begun_s, taken_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        gpus, unread = board.gpus(options.site_clocks)
        driver = board.driver_version()
    except GpuError as error:
        print(f"nothing can be examined: {error}", file=sys.stderr)
        return 1
    chosen = _chosen(gpus, options.gpu)
    for what in unread:
        print(what, file=sys.stderr)
    if not chosen:
        print("no GPU is examined", file=sys.stderr)
        return 1
    doctor = _Doctor(chosen, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(doctor, "told", "it was told to stop"))
    ended = doctor.run()
    found = [one.found for one in doctor.examinations]
    record = Record.of(_version(), driver, taken_at, round(time.monotonic() - begun_s, 1), found)
    with suppress(RecordError):
        record = record.after(Record.read(options.state_dir))
    for one in found:
        title = f"{one.model}, {one.uuid}, driver {driver}; joulepath {record.joulepath}, {taken_at}"
        print(f"\n{table(title, findings(one))}")
    status = 1 if ended else 0
    if ended:
        print(f"\nThe examination ended early: {ended}. No record is written.", file=sys.stderr)
    else:
        try:
            print(f"\n{record.seconds:.0f} s; the agent reads this from {record.write(options.state_dir)}")
        except OSError as error:
            print(f"\nThe record can't be written: {error}", file=sys.stderr)
            status = 1
    sys.stdout.flush()
    return status


def _chosen(gpus: Sequence[Gpu], wanted: Sequence[str]) -> list[Gpu]:
    """Those that are wanted (all, unless told otherwise) and that nobody computes on; says why not the others."""
    chosen = []
    for uuid in set(wanted) - {gpu.uuid for gpu in gpus}:
        print(f"NVML shows no {uuid}", file=sys.stderr)
    for gpu in gpus:
        if wanted and gpu.uuid not in wanted:
            continue
        try:
            refused = gpu.refused or why_busy(gpu.uuid)
        except GpuError as error:
            refused = str(error)
        if refused:
            print(f"{gpu.uuid} is left alone: {refused}", file=sys.stderr)
        else:
            chosen.append(gpu)
    return chosen


def _version() -> str:
    try:
        return version("joulepath")
    except PackageNotFoundError:
        return "from source"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joulepath-agent doctor",
        description="Examines the GPUs of this node that nobody computes on: whether clocks can be set, how long that "
        "takes, and what it means for plans. Needs the node's warden; leaves default clocks, whatever happens.",
    )
    folder = os.environ.get("JOULEPATH_STATE_DIR") or "/var/lib/joulepath"
    parser.add_argument("--state-dir", type=Path, default=folder, help="of warden and record [JOULEPATH_STATE_DIR]")
    parser.add_argument("--gpu", action="append", default=[], metavar="UUID", help="examine only this one (repeatable)")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, help="seconds, at most (default: %(default).0f)")
    parser.add_argument("--leave-clocks", action="store_true", help="set no clock: measure what can be seen without")
    text = "share of the usual time for each check; figures are the coarser, the less it is (default: 1)"
    parser.add_argument("--pace", type=float, default=1.0, help=text)
    site = os.environ.get("JOULEPATH_SITE_CLOCKS") or ""
    parser.add_argument("--site-clocks", type=site_clocks, default=site, help="as the agent's [JOULEPATH_SITE_CLOCKS]")
    load = f"{shlex.quote(sys.executable)} -m joulepath_load"
    text = "command of the process that loads a GPU, with a Python that has torch (default: this Python's)"
    parser.add_argument("--load", default=os.environ.get("JOULEPATH_LOAD") or load, help=f"{text} [JOULEPATH_LOAD]")
    return parser


if __name__ == "__main__":
    # Threads that hang in NVML don't keep it.
    os._exit(main())
