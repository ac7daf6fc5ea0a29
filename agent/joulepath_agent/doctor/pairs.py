"""What takes a GPU beyond those that are examined one by one: two at once, or a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from joulepath_agent.doctor.checks import looks_until, target_clocks
from joulepath_agent.doctor.figures import Collectives, Killed, Spread, spread
from joulepath_agent.doctor.hold import Hold, NotMeasuredError
from joulepath_agent.doctor.load import Load, LoadError

__all__ = ["collectives", "killed"]

_READY_S: Final = 60.0
_WARM_UP_S: Final = 1.0
_STILL_S: Final = 2.0
_SWITCHING_S: Final = 4.0
_SWITCH_EVERY_S: Final = 0.05
"""As in NVIDIA/nccl#1551."""
_FEWEST: Final = 20
_LONGEST_S: Final = 10.0


def collectives(holds: Sequence[Hold], command: Sequence[str]) -> Collectives:
    """All-reduces of two GPUs: at a still high clock, at a still low one, and while the clock alternates.

    Raises:
        NotMeasuredError: There are no two GPUs, or NCCL doesn't run on them.
        StoppedError: It is to end.
        GpuError: NVML fails.
    """
    if len(holds) < 2:
        raise NotMeasuredError("it takes two GPUs of one model that nobody computes on: NCCL refuses two ranks on one")
    first, second = holds[:2]
    clocks = target_clocks(first.gpu)
    low_mhz, high_mhz = clocks[0], clocks[-2]
    with tempfile.TemporaryDirectory() as folder:
        ranks: list[Load] = []
        try:
            # Both have to be started before either is ready.
            store = str(Path(folder) / "store")
            ranks = _start_together([first, second], command, store)
            return _compare((first, second), ranks, low_mhz, high_mhz)
        except LoadError as error:
            raise NotMeasuredError(f"no all-reduce of two GPUs: {error}") from None
        finally:
            for rank in ranks:
                rank.close()


def killed(hold: Hold, state_dir: Path, site_clocks: str) -> Killed:
    """How long a clock stays locked after SIGKILL of the process that leased it; the doctor leases nothing meanwhile.

    Raises:
        NotMeasuredError: The process couldn't lock, or that wasn't seen.
        StoppedError: It is to end.
        GpuError: NVML fails.
    """
    gpu = hold.gpu
    clock = target_clocks(gpu)[0]
    before_mhz = hold.sm_clock_mhz()
    command = [sys.executable, "-m", "joulepath_agent.doctor.victim", str(state_dir), gpu.uuid, str(clock), site_clocks]
    victim = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout is not None
        said = victim.stdout.readline().strip()
        if said != "locked":
            raise NotMeasuredError(f"the process that is to be killed couldn't lock: {said or 'it has ended'}")
        middle_mhz = (before_mhz + clock) / 2
        if not _reaches(hold, lambda mhz: mhz < middle_mhz):
            raise NotMeasuredError(f"the lock to {clock} MHz wasn't seen in the SM clock")
        victim.send_signal(signal.SIGKILL)
        begun_s = time.monotonic()
        if not _reaches(hold, lambda mhz: mhz > middle_mhz):
            raise NotMeasuredError(f"the clock was still low {_LONGEST_S:.0f} s after SIGKILL: is the warden well?")
        return Killed(time.monotonic() - begun_s, clock)
    finally:
        victim.kill()
        victim.communicate()


def _reaches(hold: Hold, there: Callable[[int], bool]) -> bool:
    looks = looks_until(hold, time.monotonic(), there, _LONGEST_S)
    return bool(looks) and there(looks[-1][1])


def _start_together(holds: Sequence[Hold], command: Sequence[str], store: str) -> list[Load]:
    def start(rank: int) -> Load:
        return Load(command, holds[rank].gpu.uuid, _READY_S, "--rank", str(rank), "--store", store)

    with ThreadPoolExecutor(len(holds)) as pool:
        started = [pool.submit(start, rank) for rank in range(len(holds))]
    failures = [one.exception() for one in started if one.exception() is not None]
    ranks = [one.result() for one in started if one.exception() is None]
    if failures:
        for rank in ranks:
            rank.close()
        raise LoadError(str(failures[0]))
    return ranks


def _compare(holds: Sequence[Hold], ranks: Sequence[Load], low_mhz: int, high_mhz: int) -> Collectives:
    reporter = ranks[0]

    def lock(clock: int) -> None:
        for hold in holds:
            hold.lock(clock)

    def taken_s(during: Callable[[], None]) -> Spread:
        reporter.ask("")
        during()
        seconds = [float(one) for one in reporter.ask("")["seconds"]]
        if len(seconds) < _FEWEST:
            raise NotMeasuredError(f"only {len(seconds)} all-reduces ended")
        return spread(seconds)

    def still(clock: int) -> Spread:
        lock(clock)
        holds[0].rest(holds[0].pace * _WARM_UP_S)
        return taken_s(lambda: holds[0].rest(holds[0].pace * _STILL_S))

    def switch() -> None:
        until_s, at = time.monotonic() + holds[0].pace * _SWITCHING_S, low_mhz
        while time.monotonic() < until_s:
            at = low_mhz + high_mhz - at
            lock(at)
            holds[0].rest(_SWITCH_EVERY_S)

    high, low, switching = still(high_mhz), still(low_mhz), taken_s(switch)
    lock(0)
    told = reporter.hello
    return Collectives(
        reporter.name, int(told["bytes"]), high_mhz, low_mhz, high, low, switching, switch_every_s=_SWITCH_EVERY_S
    )
