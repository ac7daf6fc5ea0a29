"""Pages over HTTP, and who can keep them from being answered: nobody."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from joulepath_crds.serving import pages as serving
from joulepath_crds.serving.pages import Page, PageServer, kept, state

BIG = b"x" * (1 << 24)


def fail() -> Page:
    raise RuntimeError("on purpose")


@pytest.fixture
def server() -> Iterator[PageServer]:
    pages: dict[str, Callable[[], Page]] = {
        "/healthz": lambda: state(True),
        "/readyz": lambda: state(False),
        "/big": lambda: Page(BIG),
        "/broken": fail,
    }
    made = PageServer("pages", "127.0.0.1", 0, pages)
    yield made
    made.close()


def ask(server: PageServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/healthz", (200, b"ok\n")),
        ("/healthz?verbose", (200, b"ok\n")),
        ("/readyz", (503, b"not yet\n")),
        ("/big", (200, BIG)),
        ("/broken", (500, b"see the log\n")),
        ("/else", (404, b"there is /healthz, /readyz, /big, /broken\n")),
    ],
)
def test_pages_are_served_by_their_paths(server: PageServer, path: str, answer: tuple[int, bytes]) -> None:
    assert ask(server, path) == answer


def test_only_get_is_answered(server: PageServer) -> None:
    assert ask(server, "/healthz", "POST")[0] == 405


@pytest.mark.parametrize("drips", [16, 64, 200])
def test_probes_are_answered_while_others_drip(server: PageServer, drips: int) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(drips)]
        for byte in b"GET /healthz":
            for other in others:
                try:
                    other.send(bytes([byte]))
                except OSError:  # it has been hung up on
                    continue
            assert ask(server, "/healthz") == (200, b"ok\n")


@pytest.mark.parametrize("said", [b"", b"GET /healthz", b"GET /big HTTP/1.1\r\n\r\n"])
def test_whoever_takes_too_long_is_hung_up_on(server: PageServer, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_WHOLE_S", 0.1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        other.settimeout(60)
        other.connect(("127.0.0.1", server.port))
        other.send(said)
        assert ask(server, "/healthz")[0] == 200
        while len(server) > 0:
            time.sleep(0.01)
        taken = 0
        while True:
            try:
                part = other.recv(1 << 20)
            except ConnectionResetError:
                break
            if not part:
                break
            taken += len(part)
        assert taken < len(BIG)


def test_a_request_without_an_end_is_hung_up_on(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
        try:
            other.sendall(b"GET /" + b"x" * 100_000)
            assert other.recv(1) == b""
        except ConnectionError:
            pass
    assert ask(server, "/healthz")[0] == 200


def test_a_page_that_is_kept_is_made_anew_when_it_is_old() -> None:
    made: list[int] = []

    def make() -> Page:
        made.append(1)
        return Page(b"")

    often, seldom = kept(make, 0.0), kept(make, 3600.0)
    for page, count in ((often, 3), (seldom, 1)):
        made.clear()
        for _ in range(3):
            page()
        assert len(made) == count
