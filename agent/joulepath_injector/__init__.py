"""The injector of a node: puts the trainer beside the user's code when a container is made.

It is a plugin of the container runtime (NRI), and so root on the node in all but name: it has no token, no network and
no capability, mounts the runtime's socket, three folders and, to see what is over them, the state folder, and imports
the standard library, protobuf and the rules. Nothing waits for it but a container that is being made: 100 ms for the
agent's answer, where its pod names a job and there is an agent, and the runtime's own time-out, once, where this
process hangs. Whatever goes wrong, the container is made as it was asked for.
"""

from __future__ import annotations

__all__: list[str] = []
