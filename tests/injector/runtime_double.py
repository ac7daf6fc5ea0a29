"""A container runtime as far as a plugin meets it: it registers, and is called."""

from __future__ import annotations

import socket
from typing import Any

from joulepath_injector.nri import frames
from joulepath_injector.nri.frames import PLUGIN, RUNTIME
from joulepath_injector.nri.messages import TYPES
from joulepath_injector.nri.ttrpc import REQUEST, RESPONSE, Message, Messages, pack

__all__ = ["RuntimeDouble", "container", "pod"]


class RuntimeDouble:
    """The other end of a plugin's connection."""

    def __init__(self, trunk: socket.socket) -> None:
        trunk.settimeout(30)
        self.trunk, self._calls = trunk, 0

    def registered(self, code: int = 0) -> Any:
        """Waits for the plugin's registration, and answers it."""
        message = self._receive(RUNTIME)
        assert message.kind == REQUEST
        request = TYPES["Request"].FromString(message.body)
        assert (request.service, request.method) == ("nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
        status = {"code": code, "message": "refused"} if code else None
        answer = TYPES["Response"](status=status).SerializeToString()
        frames.send(self.trunk, RUNTIME, pack(Message(message.call, RESPONSE, answer)))
        return TYPES["RegisterPluginRequest"].FromString(request.payload)

    def call(self, method: str, payload: bytes) -> bytes:
        """Calls the plugin; the answer's payload."""
        self._calls += 2
        request = TYPES["Request"](service="nri.pkg.api.v1alpha1.Plugin", method=method, payload=payload)
        frames.send(self.trunk, PLUGIN, pack(Message(self._calls, REQUEST, request.SerializeToString())))
        message = self._receive(PLUGIN)
        assert (message.call, message.kind) == (self._calls, RESPONSE)
        answer = TYPES["Response"].FromString(message.body)
        assert not answer.status.code
        return bytes(answer.payload)

    def _receive(self, wanted: int) -> Message:
        read = Messages()
        while True:
            connection, data = frames.receive(self.trunk)
            assert connection == wanted
            for message in read.take(data):
                return message


def pod(uid: str = "uid", sandbox: str = "sandbox", **more: Any) -> Any:
    """A sandbox as the runtime tells of it."""
    return TYPES["PodSandbox"](id=sandbox, uid=uid, namespace="team", name="pod", **more)


def container(name: str = "pytorch", sandbox: str = "sandbox", **more: Any) -> Any:
    """A container as the runtime tells of it."""
    return TYPES["Container"](pod_sandbox_id=sandbox, name=name, **more)
