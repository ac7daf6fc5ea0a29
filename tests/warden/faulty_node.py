"""A node whose parts are killed, stopped, started and broken in any order, and whose clocks must come back after all.

Two GPUs with a rank each, a warden, clocks, an agent. What the kubelet would do is done in `settle` only: dead or
stopped containers of the pod begin anew once the driver answers again. The driver's own list of orders is what is
judged.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.agent.room import Launcher, Process, Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held
from virtual_gpus import model, state
from virtual_gpus.build import library_dir
from virtual_gpus.fixtures import VirtualGpus

__all__ = ["NodeMachine", "new_gpus"]

GPUS: Final = (0, 1)
PARTS: Final = st.sampled_from(["clocks", "agent", "warden", "rank 0", "rank 1"])
QUIET_S: Final = 0.5
"""Longer than a late order may wait in a process that lives."""
START_S: Final = 5.0
NVML_ERROR_UNKNOWN: Final = 999


def new_gpus(folder: Path, **options: object) -> VirtualGpus:
    """A node's GPUs, and an environment of as little else as can be."""
    chosen = state.Options(time_scale=0.1, node="faulty", root_only=False, gpus=len(GPUS), **options)  # type: ignore[arg-type]
    kind = model.parametric({})
    state.create(folder / "gpus", kind, chosen)
    environment = {
        "PATH": "/usr/bin:/bin",
        "VIRTUAL_GPUS_STATE": str(folder / "gpus"),
        "NVIDIA_VISIBLE_DEVICES": "all",
        "LD_LIBRARY_PATH": str(library_dir()),
    }
    return VirtualGpus(folder / "gpus", kind, chosen, environment)


@dataclass
class Seen:
    """What there was to be judged."""

    sequences: int = 0
    locked: int = 0
    """Sequences in which a clock was locked at all."""
    orders: int = 0
    took_s: list[float] = field(default_factory=list)
    """Of each clock that was locked when a part died or was stopped, and had to be let go of: until it was."""


class NodeMachine(RuleBasedStateMachine):
    """Rules are faults, and what a node does besides."""

    launcher: Launcher
    seen = Seen()
    """Of all machines."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.room = Room(self.launcher, new_gpus(self.folder), self.folder, self.stack)
        self.parts: dict[str, Process] = {}
        self.stopped: set[str] = set()
        self.broken: set[int] = set()
        self.planned = True
        self.heal()
        wait_until(self._all_locked, "all clocks are locked")

    # what happens

    @rule()
    def heal(self) -> None:
        """All is well for a while, so that there is something to lose."""
        self.mend()
        self.go_on()
        self.give_sockets_back()
        for part in [name for name in self.parts if name.startswith("other")]:
            self._kill(part)
        for part in ("warden", "clocks", "agent", "rank 0", "rank 1"):
            if part.startswith("rank") or not self._is_there(part):
                self._start(part)
        self.plan(LOW_MHZ)
        deadline = time.monotonic() + START_S
        while not self._all_locked() and time.monotonic() < deadline:
            time.sleep(0.02)

    @rule(part=PARTS, by=st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]), looks=st.booleans())
    def die(self, part: str, by: signal.Signals, looks: bool) -> None:
        """A part ends, and perhaps nothing else happens until its clocks are free."""
        since_ns, locked = time.monotonic_ns(), self._locked()
        if by == signal.SIGKILL:
            self._kill(part)
        elif part in self.parts:
            self._send(part, by)
        if looks:
            self._look(since_ns, locked)

    @rule(part=PARTS, looks=st.booleans())
    def stop(self, part: str, looks: bool) -> None:
        """A part is stopped: a cgroup that is frozen, a machine that swaps."""
        since_ns, locked = time.monotonic_ns(), self._locked()
        if part in self.parts:
            self._send(part, signal.SIGSTOP)
            self.stopped.add(part)
        if looks:
            self._look(since_ns, locked)

    @rule()
    def go_on(self) -> None:
        """What was stopped goes on."""
        for part in sorted(self.stopped):
            self._send(part, signal.SIGCONT)
        self.stopped.clear()

    @rule(part=PARTS)
    def start(self, part: str) -> None:
        """A part begins where it isn't there; a rank in place of another."""
        if part.startswith("rank") or not self._is_there(part):
            self._start(part)

    @rule()
    def start_another_pod(self) -> None:
        """Another release, or a pod whose predecessor was deleted by force: both have a warden, clocks and an agent."""
        self._keep("other warden", self._warden())
        self._keep("other clocks", self._clocks(self.folder / "other.sock"))
        self._keep("other agent", self._agent())

    @rule(gpu=st.sampled_from(GPUS), how=st.sampled_from(["set", "reset", "both", "error", "lost"]))
    def break_gpu(self, gpu: int, how: str) -> None:
        """The driver hangs, fails or loses a GPU."""
        hang = {"set": ["set"], "reset": ["reset"], "both": ["set", "reset"]}.get(how, [])
        error = NVML_ERROR_UNKNOWN if how == "error" else 0
        self.room.gpus.break_gpu(gpu, lost=how == "lost", set_error=error, hang=hang)  # type: ignore[arg-type]
        self.broken.add(gpu)

    @rule()
    def mend(self) -> None:
        """The driver is well again."""
        for gpu in GPUS:
            self.room.gpus.break_gpu(gpu)
        self.broken.clear()

    @rule(how=st.sampled_from(["lost", "garbage", "folder", "empty"]))
    def spoil_journal(self, how: str) -> None:
        """The journal is not what it was."""
        journal = self.room.journal
        journal.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError, IsADirectoryError):  # the warden may write it at this moment
            if journal.is_dir():
                journal.rmdir()
            journal.unlink(missing_ok=True)
            if how == "folder":
                journal.mkdir()
            elif how != "lost":
                journal.write_bytes(b"\xff\x00GPU-" if how == "garbage" else b"")

    @rule(name=st.sampled_from(["agent", "clocks", "warden"]))
    def take_socket(self, name: str) -> None:
        """A directory stands where a socket was: of ranks, of the agent, of the clocks."""
        path = self.room.socket if name == "agent" else self.room.state_dir / f"{name}.sock"
        path.parent.mkdir(exist_ok=True)
        if not path.is_dir():
            path.unlink(missing_ok=True)
            path.mkdir()

    @rule()
    def give_sockets_back(self) -> None:
        """And goes."""
        for path in (self.room.socket, *(self.room.state_dir / f"{name}.sock" for name in ("clocks", "warden"))):
            if path.is_dir():
                path.rmdir()

    @rule(clock=st.sampled_from([LOW_MHZ, 600]))
    def plan(self, clock: int) -> None:
        """Another plan is given."""
        self._say(held(f"clock-{clock}", clock))
        self.planned = True

    @rule()
    def withdraw(self) -> None:
        """There is no plan any more."""
        self._say()
        self.planned = False

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        time.sleep(seconds)

    def _look(self, since_ns: int, locked: Collection[int]) -> None:
        """GPUs that were locked, that work, and that nobody may hold any more, come back if clocks or warden live."""
        for gpu in self._must_be_free().intersection(locked):
            wait_until(lambda at=gpu: self.room.clock(at) == 0, f"GPU {gpu} is free: {self._who()}")  # type: ignore[misc]
            resets = (one for one in self.room.gpus.orders(gpu) if one.taken_ns > since_ns and not one.high_mhz)
            self.seen.took_s.append((next(resets).taken_ns - since_ns) / 1e9)

    # how it ends

    def teardown(self) -> None:
        """The driver answers, the kubelet does its work, the jobs end: no clock stays locked, and none is again."""
        try:
            self._settle()
            given = [self.room.gpus.orders(gpu) for gpu in GPUS]
            self.seen.sequences += 1
            self.seen.orders += sum(map(len, given))
            self.seen.locked += any(one.high_mhz for of_gpu in given for one in of_gpu)
        finally:
            self.stack.close()

    def _settle(self) -> None:
        self.mend()
        self.give_sockets_back()
        if self.room.journal.is_dir():
            self.room.journal.rmdir()
        self.stopped.discard("warden")  # its container has no probe: it is stopped by who goes on with it
        if "warden" in self.parts:
            self._send("warden", signal.SIGCONT)
        for part in [name for name in self.parts if name != "warden"]:
            self._kill(part)
        self._free("the warden that is there" if self._is_there("warden") else "a new one")
        self._kill("warden")
        self._free("the next one")
        assert self.room.named() == []

    def _free(self, by: str) -> None:
        if not self._is_there("warden"):
            self._keep("warden", self.room.warden())
        wait_until(lambda: not self._locked(), f"all clocks are default, by {by}")
        time.sleep(QUIET_S)
        assert not self._locked(), "a late order came"

    # its parts

    def _all_locked(self) -> bool:
        return len(self._locked()) == len(GPUS)

    def _locked(self) -> set[int]:
        return {gpu for gpu in GPUS if self.room.clock(gpu)}

    def _must_be_free(self) -> set[int]:
        """GPUs that nobody may hold locked, and that somebody is there to reset."""
        well = {part for part in self.parts if part not in self.stopped and self._is_there(part)}
        if not well & {"clocks", "warden"} or "other clocks" in self.parts:
            return set()
        whole = {"clocks", "warden"} <= well
        return {gpu for gpu in GPUS if gpu not in self.broken and not (whole and f"rank {gpu}" in well)}

    def _start(self, part: str) -> None:
        made: Callable[[], Process]
        if part == "warden":
            made = self._warden
        elif part == "clocks":
            made = self._clocks
        elif part == "agent":
            made = self._agent
        else:
            gpu = int(part[-1])
            made = lambda: self.room.peer(rank=gpu, ordinal=gpu, iterations=1_000_000, patient=True)  # noqa: E731
        self._keep(part, made())
        if part == "agent" and self.planned:
            self._say(held())

    def _warden(self) -> Process:
        return self.room.warden(waits=False)

    def _clocks(self, path: Path | None = None) -> Process:
        with (self.folder / "clocks.log").open("ab") as log:
            return self.room.begin_clocks(path or self.room.socket, log.fileno())

    def _agent(self) -> Process:
        with (self.folder / "agent.log").open("ab") as log:
            return self.room.begin_agent(None, log.fileno())

    def _keep(self, part: str, process: Process) -> None:
        self._kill(part)
        self.parts[part] = process

    def _send(self, part: str, sent: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            self.parts[part].send(sent)

    def _kill(self, part: str) -> None:
        if part in self.parts:
            self.parts[part].end()
            self._forget(part)

    def _forget(self, part: str) -> None:
        self.parts.pop(part, None)
        self.stopped.discard(part)

    def _is_there(self, part: str) -> bool:
        return part in self.parts and not self.parts[part].ended()

    def _say(self, *plans: dict[str, object]) -> None:
        if "agent" in self.parts:
            try:
                self.parts["agent"].say({"plans": list(plans)})
            except BrokenPipeError:
                self._kill("agent")

    def _who(self) -> str:
        return json.dumps({"parts": sorted(self.parts), "stopped": sorted(self.stopped), "broken": sorted(self.broken)})
