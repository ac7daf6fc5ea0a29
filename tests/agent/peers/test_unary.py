"""A gRPC call without grpcio, answered by grpcio's own server and by servers that do it wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from joulepath_agent.peers.unary import CallError, call
from tests.agent.peers.kubelet_double import served


@contextmanager
def said(path: Path, *what: bytes) -> Iterator[None]:
    """Somebody who accepts one connection and says this, whatever is asked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def say() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for one in what:
                    connection.sendall(one)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        threading.Thread(target=say, daemon=True).start()
        yield


def ask(path: Path, request: bytes = b"", method: str = "/v1.Service/Method", **changes: Any) -> bytes:
    """Calls it."""
    return call(path, method, request, **{"timeout_s": 10.0, "most_bytes": 1 << 24, **changes})


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_the_response_comes_as_it_was_sent_however_large(tmp_path: Path, size: int) -> None:
    with served(tmp_path / "s", "v1.Service", "Method", lambda request, _: request[::-1] * size):
        assert ask(tmp_path / "s", b"\x01\x02") == b"\x02\x01" * size


def test_a_response_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with served(tmp_path / "s", "v1.Service", "Method", lambda *_: b"x" * 1001):
        assert len(ask(tmp_path / "s", most_bytes=1001)) == 1001
        with pytest.raises(CallError, match="more than"):
            ask(tmp_path / "s", most_bytes=1000)


def test_a_method_that_fails_says_why(tmp_path: Path) -> None:
    def fail(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "100% of what: ünicode")

    with served(tmp_path / "s", "v1.Service", "Method", fail):
        with pytest.raises(CallError, match=r"gRPC status 8, .*100% of what: ünicode"):
            ask(tmp_path / "s")
        with pytest.raises(CallError, match="gRPC status 12"):
            ask(tmp_path / "s", method="/v1.Service/Other")


def test_who_answers_too_late_is_left(tmp_path: Path) -> None:
    over = threading.Event()

    def linger(*_: object) -> bytes:
        over.wait()
        return b""

    with served(tmp_path / "s", "v1.Service", "Method", linger):
        with pytest.raises(CallError, match="timed out"):
            ask(tmp_path / "s", timeout_s=0.2)
        over.set()


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="No such file"):
        ask(tmp_path / "s")


def answered(*frames: Callable[[H2Connection], None]) -> bytes:
    """The bytes of a server that sends these frames on the first stream."""
    server = H2Connection(H2Configuration(client_side=False))
    client = H2Connection()
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")])
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    for frame in frames:
        frame(server)
    return server.data_to_send()


HEAD = [(":status", "200"), ("content-type", "application/grpc")]
FINE = [("grpc-status", "0")]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ((), "closed before"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "closed before"),
        ((answered(lambda s: s.send_headers(1, HEAD, end_stream=True)),), "gRPC status none"),
        ((answered(lambda s: s.send_headers(1, [(":status", "503")], end_stream=True)),), "HTTP status 503"),
        ((answered(lambda s: s.reset_stream(1, 7)),), "HTTP/2's error 7"),
        ((answered(lambda s: s.close_connection(2)),), "HTTP/2's error 2"),
        ((answered(lambda s: s.close_connection(0)),), "closed before"),
        ((answered(lambda s: s.send_headers(1, [*HEAD, (b"grpc-message", b"\xff")], end_stream=True)),), "utf-8"),
        (
            (
                answered(
                    lambda s: s.send_headers(1, HEAD),
                    lambda s: s.send_data(1, b"\x01\0\0\0\x01x"),
                    lambda s: s.send_headers(1, FINE, end_stream=True),
                ),
            ),
            "without compression",
        ),
        (
            (
                answered(
                    lambda s: s.send_headers(1, HEAD),
                    lambda s: s.send_data(1, b"\0\0\0\0\x09x"),
                    lambda s: s.send_headers(1, FINE, end_stream=True),
                ),
            ),
            "aren't one message",
        ),
    ],
)
def test_what_is_no_answer_is_told_as_such(tmp_path: Path, what: tuple[bytes, ...], why: str) -> None:
    with said(tmp_path / "s", *what), pytest.raises(CallError, match=why):
        ask(tmp_path / "s")


WHOLE = (
    lambda s: s.send_headers(1, HEAD),
    lambda s: s.send_data(1, b"\0\0\0\0\x01x"),
    lambda s: s.send_headers(1, FINE, end_stream=True),
)


def test_a_server_that_ends_after_its_answer_has_answered(tmp_path: Path) -> None:
    with said(tmp_path / "s", answered(*WHOLE, lambda s: s.close_connection(0))):
        assert ask(tmp_path / "s") == b"x"
