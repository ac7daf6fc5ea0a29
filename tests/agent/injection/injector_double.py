"""A node's injector as far as its agent meets one: a real socket, whose packets the test writes and reads."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joulepath_injector.words import FOLDER, MOST_BYTES, SOCKET_NAME, Answer, InjectorWord, decode, encode

__all__ = ["InjectorDouble", "injector_double"]

_PATIENCE_S = 60.0


class InjectorDouble:
    """Serves one agent at a time."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._agent: socket.socket | None = None

    def meet(self) -> None:
        """Waits for an agent, instead of the one that is there."""
        self.hang_up()
        self._agent, _ = self._listener.accept()
        self._agent.settimeout(_PATIENCE_S)

    def tell(self, *words: InjectorWord | bytes) -> None:
        """Says these, or sends any packets."""
        assert self._agent is not None
        for word in words:
            self._agent.send(word if isinstance(word, bytes) else encode(word))

    def hear(self) -> Answer:
        """The next answer."""
        assert self._agent is not None
        answer = decode(self._agent.recv(MOST_BYTES))
        assert isinstance(answer, Answer)
        return answer

    def hears_nothing(self, for_s: float) -> bool:
        """Whether nothing is said for so long."""
        assert self._agent is not None
        self._agent.settimeout(for_s)
        try:
            self._agent.recv(MOST_BYTES)
        except TimeoutError:
            return True
        finally:
            self._agent.settimeout(_PATIENCE_S)
        return False

    def hang_up(self) -> None:
        """Leaves the agent, if there is one."""
        if self._agent is not None:
            self._agent.close()


@contextmanager
def injector_double(state_dir: Path) -> Iterator[InjectorDouble]:
    """Listens in that folder."""
    (state_dir / FOLDER).mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(state_dir / FOLDER / SOCKET_NAME))
        listener.listen(4)
        listener.settimeout(_PATIENCE_S)
        double = InjectorDouble(listener)
        try:
            yield double
        finally:
            double.hang_up()
            (state_dir / FOLDER / SOCKET_NAME).unlink()
