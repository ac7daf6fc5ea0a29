"""The container runtime's plugin interface: https://github.com/containerd/nri.

- `frames`: two connections in one
- `ttrpc`: calls, in both directions
- `messages`: what they carry, as far as it is needed
- `plugin`: a plugin's life: registered, configured, told what is there, asked about each container
"""

from __future__ import annotations

__all__: list[str] = []
