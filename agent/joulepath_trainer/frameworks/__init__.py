"""What is watched in a training process.

- `pipelining`: the steps of `torch.distributed.pipelining`
- `optimizers`: the steps of an optimizer, where there is no pipeline
- `adapters`: one observer, told by these
"""

from __future__ import annotations

__all__: list[str] = []
