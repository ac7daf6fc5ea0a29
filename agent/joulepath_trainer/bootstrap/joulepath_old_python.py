"""Tells the agent of the node that a Python which is too old for the trainer imports torch; nothing is observed here.

Whoever waits for that training's report learns the reason so. A Python that never imports torch tells nothing.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["Watch", "install"]

_NO_SIGNAL = 0x4000
"""MSG_NOSIGNAL of Linux, which old Pythons don't name."""


class Watch(object):
    """A finder that finds nothing. It is asked for a module of torch once torch is there and being imported."""

    def __init__(self, socket_path, message):
        # type: (str, bytes) -> None
        self._socket_path, self._message = socket_path, message
        self._told = False

    def find_spec(self, name, path=None, target=None):
        # type: (str, Sequence[str] | None, ModuleType | None) -> None
        """Tells the agent, once; of an agent that isn't there yet, at torch's next module."""
        if not self._told and name.startswith("torch."):
            try:
                self._tell()
                self._told = True
            except Exception:
                pass

    find_module = find_spec
    """As Python 2 calls it."""

    def _tell(self):
        # type: () -> None
        import socket

        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            connection.connect(self._socket_path)
            connection.send(self._message, _NO_SIGNAL)
        finally:
            connection.close()


def install(socket_path, needed):
    # type: (str, tuple[int, int]) -> None
    """Watches for torch in this process; `needed` is the oldest Python that the trainer runs on."""
    versions = sys.version_info[0], sys.version_info[1], needed[0], needed[1]
    # The other side is `OldPython` of `joulepath_trainer.wire.messages`.
    sys.meta_path.insert(0, Watch(socket_path, ("JPV1 %d.%d %d.%d" % versions).encode()))
