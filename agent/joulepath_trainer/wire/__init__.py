"""The wire format between a training process (trainer) and the agent of its node.

- `protocol`: the socket, the version, the kinds of instructions, the error
- `messages`: hello, reply and iteration record
- `parts`: records of more instructions than one message holds
- `page`: the shared page: its layout, byte by byte, and its two sides
"""

from __future__ import annotations

__all__: list[str] = []
