"""What the node's injector is told: which containers get the trainer.

- `jobs`: which job a pod belongs to, and whether that asks for a plan
- `registry`: the pods of the node, and what became of their containers
- `admission`: the answers
- `client`: the connection to the injector
"""

from __future__ import annotations

__all__: list[str] = []
