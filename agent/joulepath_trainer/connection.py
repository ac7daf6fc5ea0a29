"""The connection to the node's agent: whatever the agent does, the training hardly waits for it.

The hello is sent at one training step. If the answer isn't there, it is looked for at the following ones, so that an
agent that is slow, stopped or hostile costs a training step one system call.
"""

from __future__ import annotations

import array
import os
import select
import socket

from joulepath_trainer.wire.messages import PROCESS, Hello, Reply
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES

__all__ = ["AgentBusyError", "AgentGoneError", "AgentRefusedError", "AgentUnwillingError", "Handshake"]


class AgentRefusedError(Exception):
    """The agent will never want this rank; the text is its reason."""


class AgentGoneError(Exception):
    """There is no agent at the socket (any more)."""


class AgentUnwillingError(AgentGoneError):
    """The agent doesn't want this rank now; the text is its reason."""


class AgentBusyError(AgentGoneError):
    """More connect at once than the agent's queue of connections holds."""


class Handshake:
    """A hello that was sent and isn't answered yet."""

    def __init__(self, path: str, hello: Hello, page: int) -> None:
        """Connects, says hello and gives the descriptor of the page.

        Raises:
            AgentBusyError: Its queue of connections is full.
            AgentGoneError: Nobody listens.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
            given = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [page]))]
            self._socket.sendmsg([hello.encode()], given, socket.MSG_NOSIGNAL)
        except OSError as error:
            self._socket.close()
            kind = AgentBusyError if isinstance(error, BlockingIOError) else AgentGoneError
            raise kind(f"no agent at {path}: {error.strerror or error}") from None

    def poll(self, patience_s: float = 0.0) -> socket.socket | None:
        """The connection if the agent welcomes this rank; None if it hasn't answered yet, nor does within the seconds.

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
            message = self._socket.recv(MAX_MESSAGE_BYTES + 1)  # the kernel drops descriptors that nobody asks for
        except OSError as error:
            self.close()
            raise AgentGoneError(str(error)) from None
        try:
            if not message:
                raise AgentGoneError("the agent hung up on the hello; one of another release always does")
            reply = Reply.decode(message)
            if not reply.accepted:
                raise AgentRefusedError(reply.reason) if reply.final else AgentUnwillingError(reply.reason)
            if reply.wants_process:
                _send_process(self._socket)
        except BaseException:
            self.close()
            raise
        return self._socket

    def close(self) -> None:
        """Gives up."""
        self._socket.close()


def _send_process(connection: socket.socket) -> None:
    """Gives the agent what shows it this process's end (Linux 5.3, Python 3.9): else it may learn of it later."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return
    try:
        given = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
        connection.sendmsg([PROCESS], given, socket.MSG_NOSIGNAL)
    except OSError:
        pass  # an agent that is gone is noticed by the first record
    finally:
        os.close(pidfd)
