"""The loop: resets what is in doubt, then leases GPUs to one agent and one doctor, and resets what these leave.

One thread and one selector; what may hang in the driver runs in threads of `resets`. A GPU is on the disk while it is
leased or in doubt, and leaves the journal when it is given back or has been reset after its lease was over. As a late
order of an agent that was stopped may lock a clock after a reset, a revoked lease isn't over before the agent gives it
back or its connection ends; then the clock is reset once more.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from joulepath_warden.driver import AbsentError, Driver, DriverError
from joulepath_warden.garbage import collect_often
from joulepath_warden.journal import EVERY_GPU, Journal, is_uuid
from joulepath_warden.leases import Leases
from joulepath_warden.resets import Resets
from joulepath_warden.wire import DOCTOR_FOLDER, MAX_MESSAGE_BYTES, SOCKET_NAME, Answer, Request, Verb

__all__ = ["Warden"]

log = logging.getLogger(__name__)

_TURN_S: Final = 0.2
_LISTEN_AGAIN_S: Final = 1.0
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_BLIND_S: Final = 300.0
"""After so long without a GPU, where a driver is loaded, only another container can help: it gets the driver's library
when it is made."""
_HANGS_S: Final = 20.0
"""A loop that hasn't turned for so long hangs: the process ends with a traceback, and its container is started anew."""


@dataclass(slots=True)
class _Door:
    """A socket at which one peer leases GPUs."""

    whose: str
    path: Path
    listener: socket.socket | None = None
    listen_at_s: float = 0.0
    peer: socket.socket | None = None


class Warden:
    """The holder of the lock file."""

    def __init__(self, state_dir: Path, driver: Driver) -> None:
        """Begins to reset what the journal leaves in doubt."""
        self._driver = driver
        self._journal = Journal(state_dir)
        self._leases = Leases()
        self._seen: frozenset[str] = frozenset()
        self._found: deque[frozenset[str]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._resets = Resets(self._reset, partial(os.eventfd_write, self._wake, 1))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, partial(os.eventfd_read, self._wake))
        self._doors = (
            _Door("agent", state_dir / SOCKET_NAME),
            _Door("doctor", state_dir / DOCTOR_FOLDER / SOCKET_NAME),
        )
        self._holder: dict[str, _Door] = {}
        self._told = ""
        self._closing = False
        self._moving: threading.Thread | None = None
        if self._journal.trouble:
            log.warning("%s: every GPU is reset", self._journal.trouble)
        elif self._journal.entries:
            log.warning("left locked, resetting: %s", ", ".join(sorted(self._journal.entries)))
        for entry in {*self._journal.entries, EVERY_GPU}:
            self._resets.ask(entry)

    def clear(self, limit_s: float) -> bool:
        """Waits until nothing is in doubt, or what is isn't there; whether that was so within the time."""
        self._closing = True
        deadline_s = time.monotonic() + limit_s
        while not (idle := self._idle) and time.monotonic() < deadline_s:
            self._turn()
        return idle

    def serve(self, stopping: Callable[[], bool], grace_s: float, log_descriptor: int) -> bool:
        """Leases GPUs until told to stop, then resets what is left; whether that was done within the grace.

        Args:
            stopping: Whether it is told to.
            grace_s: For how long it goes on after that.
            log_descriptor: Where a loop that hangs leaves its traceback.
        """
        begun_s = time.monotonic()
        collect_often()
        try:
            while not stopping():
                if not self._seen and time.monotonic() - begun_s > _BLIND_S and _DRIVER.exists():
                    log.error("a driver is loaded, but NVML shows no GPU here: ending, to be started anew")
                    return False
                faulthandler.dump_traceback_later(_HANGS_S, exit=True, file=log_descriptor)
                for door in self._doors:
                    self._listen(door)
                self._turn()
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._revoke(self._leases.revoke())
        done = self.clear(grace_s)
        for door in self._doors:
            with contextlib.suppress(OSError):
                door.path.unlink()
        return done

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """GPUs that may be locked, and aren't leased; those that NVML hasn't shown yet have no name."""
        return tuple(sorted(e for e in self._journal.entries if e not in self._leases and e != EVERY_GPU))

    @property
    def _idle(self) -> bool:
        return not self._leases and not self._resets.under_way & self._journal.entries and not self._found

    def _turn(self) -> None:
        for key, _ in self._selector.select(_TURN_S):
            key.data()
        for door in self._doors:
            self._hear(door)  # beats that came while this process was kept waiting count
        self._revoke(self._leases.revoke(time.monotonic()))
        self._settle()
        self._hold_driver()

    def _hold_driver(self) -> None:
        """NVML is open while it may be needed in a hurry, and let go of else; by a thread of its own: it may hang."""
        is_needed = bool(self._leases or self._journal.entries or self._resets.under_way)
        if is_needed == self._driver.is_open or (self._moving is not None and self._moving.is_alive()):
            return
        if is_needed and not self._leases:
            return  # resets open it by themselves
        move = self._open_driver if is_needed else self._driver.let_go
        self._moving = threading.Thread(target=move, name="driver", daemon=True)
        self._moving.start()

    def _open_driver(self) -> None:
        with contextlib.suppress(DriverError):  # then a reset will say so
            self._driver.open()
        time.sleep(_LISTEN_AGAIN_S)

    def _revoke(self, uuids: tuple[str, ...]) -> None:
        for uuid in uuids:
            log.warning("the lease of %s is revoked: resetting it", uuid)
            self._resets.ask(uuid)

    # resets

    def _reset(self, entry: str) -> None:
        if entry != EVERY_GPU:
            self._driver.reset(entry)
            return
        found, unread = self._driver.gpus()
        self._found.append(found)
        if unread:
            raise AbsentError("; ".join(unread))

    def _settle(self) -> None:
        done = self._resets.take_done()
        while self._found:
            found = self._found.popleft()
            fresh, self._seen = found - self._seen, self._seen | found
            if EVERY_GPU in self._journal.entries and fresh:
                self._write(self._journal.add, *fresh)
                for uuid in fresh:
                    self._resets.ask(uuid)
        if over := [entry for entry in done if entry in self._journal.entries and entry not in self._leases]:
            if reset := sorted(set(over) - {EVERY_GPU}):
                log.info("at default clocks: %s", ", ".join(reset))
            self._write(self._journal.remove, *over)

    def _write(self, change: Callable[..., None], *entries: str) -> str:
        try:
            change(*entries)
        except OSError as error:
            told = f"the journal can't be written ({error})"
            log.error("%s", told)
            return told
        return ""

    # agent and doctor

    def _listen(self, door: _Door) -> None:
        """Makes the socket; where that fails, again and again: resets need none."""
        if door.listener is not None or time.monotonic() < door.listen_at_s:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            door.path.parent.mkdir(mode=0o700, exist_ok=True)
            door.path.unlink(missing_ok=True)
            listener.bind(str(door.path))
            door.path.chmod(0o600)
            listener.listen(8)
        except OSError as error:
            listener.close()
            door.listen_at_s = time.monotonic() + _LISTEN_AGAIN_S
            self._tell(f"no {door.whose} can lease clocks: the socket {door.path} can't be made: {error}")
            return
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, door, listener))
        door.listener = listener
        log.info("clocks are leased at %s", door.path)

    def _accept(self, door: _Door, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        refused = ""
        if uid not in (0, os.geteuid()):
            refused = f"user {uid} may lease no clocks"
        elif door.peer is not None:
            refused = f"this node's warden serves another {door.whose}: two releases on one node, or one that is ending"
        peer.setblocking(False)
        with contextlib.suppress(OSError):
            peer.send(Answer(refused, in_doubt=self.in_doubt).encode())
        if refused:
            self._tell(f"process {pid} is refused: {refused}")
            peer.close()
            return
        door.peer = peer
        self._selector.register(peer, selectors.EVENT_READ, partial(self._hear, door))

    def _tell(self, trouble: str) -> None:
        """Logs what is tried again and again once."""
        if trouble != self._told:
            self._told = trouble
            log.warning("%s", trouble)

    def _hear(self, door: _Door) -> None:
        while door.peer is not None:
            try:
                packet = door.peer.recv(MAX_MESSAGE_BYTES)
                if not packet:
                    raise ConnectionError("it has hung up")
                door.peer.send(self._answer(Request.decode(packet), door).encode())
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                self._hang_up(door, error)

    def _hang_up(self, door: _Door, error: Exception) -> None:
        log.info("the %s is gone: %s", door.whose, error)
        if door.peer is not None:
            self._selector.unregister(door.peer)
            door.peer.close()
            door.peer = None
        for uuid in self._held(door):
            self._give_back(uuid, self._resets.ask)

    def _held(self, door: _Door) -> tuple[str, ...]:
        return tuple(uuid for uuid in self._leases if self._holder.get(uuid) is door)

    def _answer(self, request: Request, door: _Door) -> Answer:
        refused, held = "", self._held(door)
        match request.verb:
            case Verb.TAKE:
                refused = "; ".join(filter(None, (self._take(uuid, door) for uuid in request.gpus)))
            case Verb.GIVE_BACK:
                for uuid in set(request.gpus).intersection(held):
                    is_reset = uuid not in self._leases.revoked
                    self._give_back(uuid, partial(self._write, self._journal.remove) if is_reset else self._resets.ask)
            case Verb.BEAT:
                wanted = [uuid for uuid in request.gpus if uuid in held]
                for uuid in set(wanted).intersection(self._leases.revoked):
                    self._resets.ask(uuid)
                self._leases.keep(wanted, time.monotonic())
        revoked = tuple(uuid for uuid in self._leases.revoked if self._holder.get(uuid) is door)
        return Answer(refused, revoked, self.in_doubt)

    def _take(self, uuid: str, door: _Door) -> str:
        """Leases a GPU; or why not."""
        if self._closing:
            return f"the warden stops: {uuid} isn't leased"
        if not is_uuid(uuid):
            return f"{uuid!r:.60} is no UUID of a GPU"
        if uuid not in self._seen:
            self._resets.ask(EVERY_GPU)
            return f"the warden's NVML doesn't show {uuid}"
        if uuid in self._leases and (holder := self._holder[uuid]) is not door:
            return f"{uuid} is leased by the {holder.whose}"
        if uuid in self._journal.entries:
            return "" if uuid in self._leases and uuid not in self._leases.revoked else f"{uuid} is being reset"
        if trouble := self._write(self._journal.add, uuid):
            self._resets.ask(uuid)
            return f"{trouble}: {uuid} isn't leased"
        self._holder[uuid] = door
        self._leases.keep([uuid], time.monotonic())
        return ""

    def _give_back(self, uuid: str, then: Callable[[str], object]) -> None:
        if uuid in self._leases:
            self._leases.end(uuid)
            self._holder.pop(uuid, None)
            then(uuid)
