"""How operator, webhook and agent answer the kubelet's probes and Prometheus: small pages over HTTP, all alike.

Anybody in the cluster can reach them, and a probe that isn't answered ends the pod. So a server is one thread that
never waits for a peer: a request has to be there, and its answer taken, within seconds, however its bytes drip; and
where too many are connected, the one that has been for longest goes. Handshakes of TLS are made by the same thread,
as far as a peer's bytes go; the API server is asked who may read by others, a few.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from joulepath_crds.serving.guard import Guard

__all__ = ["Page", "PageServer", "kept", "state"]

log = logging.getLogger(__name__)

_WHOLE_S: Final = 5.0
_CONNECTIONS: Final = 64
_ACCEPTED_AT_ONCE: Final = 16
_REQUEST_BYTES: Final = 8192
_TICK_S: Final = 0.25
_CLOSE_S: Final = 1.0
_ASKING_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = "text/plain"


def state(good: bool) -> Page:
    """The page of a probe."""
    return Page(b"ok\n") if good else Page(b"not yet\n", HTTPStatus.SERVICE_UNAVAILABLE)


def kept(make: Callable[[], Page], for_s: float) -> Callable[[], Page]:
    """Makes a page again only once it is so old: asking often costs little."""
    made: tuple[float, Page] | None = None

    def page() -> Page:
        nonlocal made
        now = time.monotonic()
        if made is None or now - made[0] >= for_s:
            made = now, make()
        return made[1]

    return page


@dataclass(eq=False, slots=True)
class _Connection:
    socket: socket.socket
    ends_at_s: float
    asked: bytes = b""
    left: memoryview | None = None
    """Of the answer."""
    shaken: bool = True
    """Whether its TLS handshake is over, if there is one."""
    asking: bool = False
    """Whether the API server is asked about it: nothing is read or written meanwhile."""


class PageServer:
    """Serves pages by their paths, in a thread of its own."""

    def __init__(
        self, name: str, address: str, port: int, pages: Mapping[str, Callable[[], Page]], guard: Guard | None = None
    ) -> None:
        """Serves from now on; port 0 is any free one, and with a guard it is HTTPS.

        Raises:
            OSError: The port is taken.
        """
        self._pages, self._guard = pages, guard
        self._listener = socket.create_server((address, port), backlog=_CONNECTIONS)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: dict[_Connection, None] = {}
        """Oldest first."""
        self._asking = ThreadPoolExecutor(_ASKING_AT_ONCE, f"{name} guard")
        self._judged: deque[tuple[_Connection, HTTPStatus]] = deque()
        # Never closed: whoever asks may still be about to tell.
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, self._judged)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def close(self) -> None:
        """Ends the thread and closes all; leaves a thread alone that is still making a page."""
        self._stop.set()
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            return
        for connection in tuple(self._connections):
            self._drop(connection)
        self._selector.close()
        self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            ready = [key.data for key, _ in self._selector.select(_TICK_S)]
            for connection in ready:
                if isinstance(connection, _Connection):
                    self._serve(connection)
            if self._judged in ready:
                self._hear()
            if None in ready:
                self._accept()
            now = time.monotonic()
            for connection in [one for one in self._connections if one.ends_at_s <= now]:
                self._drop(connection)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if len(self._connections) >= _CONNECTIONS:
                self._drop(next(iter(self._connections)))
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setblocking(False)
            if self._guard is not None:
                client = self._guard.context().wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            connection = _Connection(client, time.monotonic() + _WHOLE_S, shaken=self._guard is None)
            self._connections[connection] = None
            self._selector.register(client, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            if isinstance(connection.socket, ssl.SSLSocket) and not connection.shaken:
                connection.socket.do_handshake()
                connection.shaken = True
            if connection.left is None:
                self._read(connection)
            if connection.left is not None:
                connection.left = connection.left[connection.socket.send(connection.left) :]
        except ssl.SSLWantReadError:
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            return
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        if connection.left is not None and not connection.left:
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        while b"\r\n\r\n" not in connection.asked:  # what TLS has unpacked already wakes nobody
            told = connection.socket.recv(_REQUEST_BYTES)
            connection.asked += told
            if not told or len(connection.asked) > _REQUEST_BYTES:
                raise ConnectionError("it says no request")
        if self._guard is None:
            self._reply(connection, HTTPStatus.OK)
            return
        connection.asking = True
        self._selector.unregister(connection.socket)
        self._asking.submit(self._judge, self._guard, connection)

    def _judge(self, guard: Guard, connection: _Connection) -> None:
        """In a thread of its own, that may wait for the API server."""
        if connection in self._connections:
            self._judged.append((connection, guard.judge(_token(connection.asked))))
            os.eventfd_write(self._wake, 1)

    def _hear(self) -> None:
        os.eventfd_read(self._wake)
        while self._judged:
            connection, status = self._judged.popleft()
            if connection in self._connections:
                connection.asking = False
                self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
                self._reply(connection, status)

    def _reply(self, connection: _Connection, status: HTTPStatus) -> None:
        connection.left = memoryview(self._answer(connection.asked, status))
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)

    def _answer(self, request: bytes, allowed: HTTPStatus) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0].decode("latin-1")
        page = Page(f"there is {', '.join(self._pages)}\n".encode(), HTTPStatus.NOT_FOUND)
        if allowed is not HTTPStatus.OK:
            page = Page(f"{allowed.description or allowed.phrase}\n".encode(), allowed)
        elif method != b"GET":
            page = Page(b"GET is what is answered\n", HTTPStatus.METHOD_NOT_ALLOWED)
        elif path in self._pages:
            try:
                page = self._pages[path]()
            except Exception:
                log.exception("%s could not be made", path)
                page = Page(b"see the log\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        head = f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.kind}\r\n"
        return f"{head}Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n".encode() + page.body

    def _drop(self, connection: _Connection) -> None:
        if connection in self._connections:
            del self._connections[connection]
            if not connection.asking:
                self._selector.unregister(connection.socket)
            connection.socket.close()


def _token(request: bytes) -> str:
    """The bearer token of a request's head; empty where there is none."""
    for line in request.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        scheme, _, token = value.strip().partition(b" ")
        if name.strip().lower() == b"authorization" and scheme.lower() == b"bearer":
            return token.strip().decode("latin-1")
    return ""
