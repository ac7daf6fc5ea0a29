"""The injector of a node: puts the trainer beside the user's code when a container is made.

`words` is what it and the node's agent say to each other.
"""

from __future__ import annotations

__all__: list[str] = []
