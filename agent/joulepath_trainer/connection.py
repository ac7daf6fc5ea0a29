"""The connection to the node's agent: whatever the agent does, the training hardly waits for it.

The hello is sent at one training step. If the answer isn't there, it is looked for at the following ones, so that an
agent that is slow, stopped or hostile costs a training step one system call.
"""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
from dataclasses import dataclass
from typing import Final

from joulepath_trainer.wire.messages import Hello, Reply
from joulepath_trainer.wire.page import PAGE_BYTES, check_page
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, WireError

__all__ = ["AgentBusyError", "AgentGoneError", "AgentRefusedError", "AgentUnwillingError", "Handshake", "Welcome"]

_MOST_DESCRIPTORS: Final = 8


class AgentRefusedError(Exception):
    """The agent will never want this rank; the text is its reason."""


class AgentGoneError(Exception):
    """There is no agent at the socket (any more)."""


class AgentUnwillingError(AgentGoneError):
    """The agent doesn't want this rank now; the text is its reason."""


class AgentBusyError(AgentGoneError):
    """More connect at once than the agent's queue of connections holds."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What an accepted rank works with."""

    connection: socket.socket
    page: mmap.mmap


class Handshake:
    """A hello that was sent and isn't answered yet."""

    def __init__(self, path: str, hello: Hello) -> None:
        """Connects and says hello.

        Raises:
            AgentBusyError: Its queue of connections is full.
            AgentGoneError: Nobody listens.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
            self._socket.send(hello.encode(), socket.MSG_NOSIGNAL)
        except OSError as error:
            self._socket.close()
            kind = AgentBusyError if isinstance(error, BlockingIOError) else AgentGoneError
            raise kind(f"no agent at {path}: {error.strerror or error}") from None

    def poll(self, patience_s: float = 0.0) -> Welcome | None:
        """The agent's welcome, or None if it hasn't answered yet (nor does within so many seconds).

        Raises:
            AgentGoneError: It closed the connection.
            AgentUnwillingError: It refused this rank for now.
            AgentRefusedError: It refused this rank for good.
            WireError: Its answer is none.
        """
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(patience_s * 1e3):
            return None
        try:
            message, descriptors = self._receive()
        except OSError as error:
            self.close()
            raise AgentGoneError(str(error)) from None
        try:
            if not message:
                raise AgentGoneError("the agent closed the connection")
            reply = Reply.decode(message)
            if not reply.accepted:
                raise AgentRefusedError(reply.reason) if reply.final else AgentUnwillingError(reply.reason)
            if len(descriptors) != 1:
                raise WireError(f"a welcome comes with one file descriptor, this came with {len(descriptors)}")
            return Welcome(self._socket, _map(descriptors[0]))
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Gives up."""
        self._socket.close()

    def _receive(self) -> tuple[bytes, list[int]]:
        found = array.array("i")
        message, ancillary, _, _ = self._socket.recvmsg(
            MAX_MESSAGE_BYTES + 1, socket.CMSG_SPACE(_MOST_DESCRIPTORS * found.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        return message, list(found)


def _map(descriptor: int) -> mmap.mmap:
    # Writing past the end of a file that is too short would kill the process (SIGBUS), not raise.
    size = os.fstat(descriptor).st_size
    if size < PAGE_BYTES:
        raise WireError(f"the shared page must have {PAGE_BYTES} bytes, its file has {size}")
    try:
        page = mmap.mmap(descriptor, PAGE_BYTES)
    except (OSError, ValueError) as error:
        raise WireError(f"the shared page can't be mapped: {error}") from None
    with memoryview(page) as view:
        check_page(view)
    return page
