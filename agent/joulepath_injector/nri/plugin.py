"""A plugin's life: registered, configured, told what is there, asked about each container.

The runtime calls one after the other, and a container waits meanwhile. An error as an answer would keep it from being
made: so whatever is asked, and whatever happens here, the answer is a good one, and changes nothing where in doubt.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, Protocol

from google.protobuf.message import DecodeError

from joulepath_injector.nri import frames
from joulepath_injector.nri.frames import PLUGIN, RUNTIME, NriError
from joulepath_injector.nri.messages import TYPES, Adjustment, Container, Pod, adjusted, being_made, pod, there
from joulepath_injector.nri.ttrpc import REQUEST, RESPONSE, Message, Messages, pack

__all__ = ["Plugin", "Session", "connect"]

log = logging.getLogger(__name__)

_NAME: Final = "joulepath"
_INDEX: Final = "99"
"""After all others: what they have put into a container is seen, and left as it is."""
_REGISTER_S: Final = 5
_REGISTRATION: Final = 1
"""The number of our one call."""
_RUN_POD: Final = 1
_STOP_POD: Final = 2
_REMOVE_POD: Final = 3
_CREATE_CONTAINER: Final = 4
_STOP_CONTAINER: Final = 10
_EVENTS: Final = sum(
    1 << (event - 1) for event in (_RUN_POD, _STOP_POD, _REMOVE_POD, _CREATE_CONTAINER, _STOP_CONTAINER)
)


class Plugin(Protocol):
    """What is told, and asked."""

    def synchronized(self, pods: Sequence[Pod], containers: Sequence[Container]) -> None:
        """All that is there when the plugin comes."""

    def came(self, pod: Pod) -> None:
        """A sandbox was made."""

    def left(self, pod: Pod) -> None:
        """A sandbox is stopped or removed."""

    def created(self, pod: Pod, container: Container) -> Adjustment | None:
        """A container is being made, and waits: what it gets besides."""

    def stopped(self, pod: Pod, container: Container) -> None:
        """A container has ended, or couldn't be made."""


def connect(path: Path) -> socket.socket:
    """Connects to the runtime.

    Raises:
        OSError: Nobody listens there.
    """
    trunk = socket.socket(socket.AF_UNIX)
    try:
        trunk.connect(str(path))
    except OSError:
        trunk.close()
        raise
    return trunk


class Session:
    """A plugin's connection to the runtime."""

    def __init__(self, trunk: socket.socket, plugin: Plugin) -> None:
        self._trunk, self._plugin = trunk, plugin
        self.synchronized = False
        """Whether all that was there has been told."""
        self._pods: list[Pod] = []
        self._containers: list[Container] = []
        self._calls: Mapping[str, Callable[[bytes], bytes]] = {
            "Configure": self._configure,
            "Synchronize": self._synchronize,
            "RunPodSandbox": lambda body: self._pod_event(_RUN_POD, body),
            "StopPodSandbox": lambda body: self._pod_event(_STOP_POD, body),
            "RemovePodSandbox": lambda body: self._pod_event(_REMOVE_POD, body),
            "StateChange": self._state_change,
            "CreateContainer": self._create,
            "StopContainer": self._stop,
        }

    def serve(self) -> NoReturn:
        """Registers the plugin and answers for as long as the connection lasts.

        Raises:
            NriError: It has ended, or the plugin is refused.
            OSError: It has ended.
        """
        self._register()
        streams = {PLUGIN: Messages(), RUNTIME: Messages()}
        while True:
            connection, data = frames.receive(self._trunk)
            for message in streams[connection].take(data) if connection in streams else ():
                if connection == RUNTIME and message.kind == RESPONSE:
                    _see_registered(message)
                elif connection == PLUGIN and message.kind == REQUEST:
                    answer = TYPES["Response"](payload=self.answer(message.body)).SerializeToString()
                    frames.send(self._trunk, PLUGIN, pack(Message(message.call, RESPONSE, answer)))

    def answer(self, body: bytes) -> bytes:
        """The answer to a request, whatever it is."""
        try:
            request = TYPES["Request"].FromString(body)
            call = self._calls.get(request.method)
            return call(request.payload) if call else b""
        except Exception:
            log.exception("a request of the runtime has failed here; it goes on as if nobody had been asked")
            return b""

    def _register(self) -> None:
        asked = TYPES["RegisterPluginRequest"](plugin_name=_NAME, plugin_idx=_INDEX).SerializeToString()
        request = TYPES["Request"](
            service="nri.pkg.api.v1alpha1.Runtime",
            method="RegisterPlugin",
            payload=asked,
            timeout_nano=_REGISTER_S * 10**9,
        )
        call = Message(_REGISTRATION, REQUEST, request.SerializeToString())
        frames.send(self._trunk, RUNTIME, pack(call))

    def _configure(self, body: bytes) -> bytes:
        asked = TYPES["ConfigureRequest"].FromString(body)
        log.info("a plugin of %s %s", asked.runtime_name, asked.runtime_version)
        return bytes(TYPES["ConfigureResponse"](events=_EVENTS).SerializeToString())

    def _synchronize(self, body: bytes) -> bytes:
        told = TYPES["SynchronizeRequest"].FromString(body)
        self._pods += map(pod, told.pods)
        self._containers += map(there, told.containers)
        if not told.more:
            pods, containers = self._pods, self._containers
            self._pods, self._containers = [], []
            self.synchronized = True
            log.info("%d sandboxes are there, and %d containers", len(pods), len(containers))
            self._plugin.synchronized(pods, containers)
        return bytes(TYPES["SynchronizeResponse"](more=told.more).SerializeToString())

    def _state_change(self, body: bytes) -> bytes:
        """How runtimes with an NRI before 0.12 tell what isn't a question."""
        told = TYPES["StateChangeEvent"].FromString(body)
        return self._pod_event(told.event, TYPES["PodSandboxRequest"](pod=told.pod).SerializeToString())

    def _pod_event(self, event: int, body: bytes) -> bytes:
        told = pod(TYPES["PodSandboxRequest"].FromString(body).pod)
        if event == _RUN_POD:
            self._plugin.came(told)
        elif event in (_STOP_POD, _REMOVE_POD):
            self._plugin.left(told)
        return b""

    def _create(self, body: bytes) -> bytes:
        asked = TYPES["ContainerRequest"].FromString(body)
        adjustment = self._plugin.created(pod(asked.pod), being_made(asked.container))
        return b"" if adjustment is None else adjusted(adjustment)

    def _stop(self, body: bytes) -> bytes:
        told = TYPES["ContainerRequest"].FromString(body)
        self._plugin.stopped(pod(told.pod), there(told.container))
        return b""


def _see_registered(message: Message) -> None:
    try:
        status = TYPES["Response"].FromString(message.body).status
    except DecodeError as error:
        raise NriError(f"the runtime's answer can't be read: {error}") from None
    if status.code:
        raise NriError(f"the runtime refuses the plugin: {status.message} (code {status.code})")
