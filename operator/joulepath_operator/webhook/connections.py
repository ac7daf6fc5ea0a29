"""The door of the webhook: TLS connections, each of which lives for seconds and asks once.

Anybody in the cluster may connect, and aiohttp waits for whoever drips for as long as he does. So a connection ends, be
it in its handshake, its request or its answer, once its time is over; where too many are open, the oldest goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

__all__ = ["ANSWERED_WITHIN_S", "Connections"]

log = logging.getLogger(__name__)

ANSWERED_WITHIN_S: Final = 5.0
"""From the first packet to the last: the API server itself waits for 1 s."""
_CONNECTIONS: Final = 64
_AGAIN_S: Final = 0.1


class Connections:
    """Those that are open now."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext) -> None:
        """`protocol` makes what serves a connection."""
        self._protocol, self._context = protocol, context
        self._open: list[_Connection] = []

    def __len__(self) -> int:
        """How many are open."""
        return sum(not one.closed for one in self._open)

    async def accept(self, listener: socket.socket) -> None:
        """Takes connections until it is cancelled, and hangs up on all of them then."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError as error:  # too many descriptors, most likely: some are free again soon
                    log.warning("no connection is taken: %s", error)
                    await asyncio.sleep(_AGAIN_S)
                    continue
                self._open = [one for one in self._open if not one.closed]
                if len(self._open) >= _CONNECTIONS:
                    self._open.pop(0).drop()
                self._open.append(_Connection(client, self._protocol, self._context))
        finally:
            for one in self._open:
                one.drop()


class _Connection:
    def __init__(
        self, client: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> None:
        self._client = client
        self._transport: asyncio.BaseTransport | None = None
        self._handshake = asyncio.ensure_future(self._begin(protocol, context))
        self._handshake.add_done_callback(self._begun)
        self._end = asyncio.get_running_loop().call_later(ANSWERED_WITHIN_S, self.drop)

    async def _begin(self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.connect_accepted_socket(protocol, self._client, ssl=context)
        except OSError as error:  # ssl.SSLError is one
            log.debug("a handshake failed: %s", error)

    def _begun(self, _: asyncio.Future[None]) -> None:
        if self._transport is None:
            self._client.close()

    @property
    def closed(self) -> bool:
        if self._transport is None:
            return self._handshake.done()
        return self._transport.is_closing()

    def drop(self) -> None:
        """Hangs up, whatever is under way."""
        self._end.cancel()
        self._handshake.cancel()
        if isinstance(self._transport, asyncio.WriteTransport):
            # Python before 3.11.5 has forgotten the connection of a transport that was closed twice.
            with contextlib.suppress(AttributeError):
                self._transport.abort()
