"""A unary gRPC call over a unix socket, by `h2`: one request, one response, one connection.

The kubelet is asked now and then for a few kilobytes: grpcio takes 10 MiB and threads of its own for that.
What crosses the wire: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

__all__ = ["CallError", "call"]

_READ_BYTES: Final = 65536
_PREFIX_BYTES: Final = 5
"""Of a message: whether it is compressed, and its length in four bytes."""


class CallError(RuntimeError):
    """There is no answer, or none that is one."""


def call(path: Path, method: str, request: bytes, *, timeout_s: float, most_bytes: int) -> bytes:
    """Calls a method, `/PACKAGE.SERVICE/NAME`, with a message; the response's message.

    Raises:
        CallError: Nobody answers in time, the method fails, or the response has more than so many bytes.
    """
    deadline_s = time.monotonic() + timeout_s
    answer = _Answer(most_bytes)
    protocol = H2Connection(H2Configuration(header_encoding="utf-8"))
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            protocol.initiate_connection()
            _send_request(protocol, method, request)
            while not answer.whole:
                connection.sendall(protocol.data_to_send())
                connection.settimeout(max(1e-3, deadline_s - time.monotonic()))
                events = _events(protocol, connection.recv(_READ_BYTES))
                for event in events:
                    answer.take(event)
                for event in () if answer.whole else events:
                    if isinstance(event, DataReceived):
                        protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
    except (OSError, H2Error, UnicodeDecodeError) as error:
        raise CallError(str(error) or type(error).__name__) from None
    return answer.message()


def _send_request(protocol: H2Connection, method: str, request: bytes) -> None:
    stream = protocol.get_next_available_stream_id()
    head = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost")]
    protocol.send_headers(stream, [*head, ("content-type", "application/grpc"), ("te", "trailers")])
    protocol.send_data(stream, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)


def _events(protocol: H2Connection, data: bytes) -> list[Event]:
    if not data:
        raise CallError("the connection was closed before there was an answer")
    return protocol.receive_data(data)


class _Answer:
    """What comes back."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._body = most_bytes + _PREFIX_BYTES, bytearray()
        self._headers: dict[str, str] = {}
        self.whole = False

    def take(self, event: Event) -> None:
        """Something has come."""
        if self.whole:
            return
        match event:
            case ResponseReceived() | TrailersReceived():
                self._headers |= {str(name): str(value) for name, value in event.headers or ()}
            case DataReceived():
                self._body += event.data or b""
                if len(self._body) > self._most_bytes:
                    raise CallError(f"the answer has more than {self._most_bytes} bytes")
            case StreamEnded():
                self.whole = True
            case ConnectionTerminated(error_code=ErrorCodes.NO_ERROR):
                pass  # it takes no further call: this one may still be answered
            case StreamReset() | ConnectionTerminated():
                raise CallError(f"the call was ended with HTTP/2's error {event.error_code}")

    def message(self) -> bytes:
        """The message of a call that went well."""
        status = self._headers.get("grpc-status", "none")
        if status != "0":
            said = unquote(self._headers.get("grpc-message", ""))
            raise CallError(f"gRPC status {status}, HTTP status {self._headers.get(':status')}: {said}")
        message = bytes(self._body[_PREFIX_BYTES:])
        if self._body[:_PREFIX_BYTES] != b"\0" + len(message).to_bytes(4, "big"):
            raise CallError(f"{len(self._body)} bytes that aren't one message without compression")
        return message
