"""What the trainer's way into a pod is, and what was in its way. Pure.

- `patch`: what the webhook adds to a pod
- `init_container`: the one among it
- `breaker`: when injection stops, since that one fails, and for how long
- `diagnosis`: why a pod has no trainer
"""

from __future__ import annotations

__all__: list[str] = []
