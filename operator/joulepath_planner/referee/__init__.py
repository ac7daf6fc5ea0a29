"""What a plan really takes and costs; knows nothing of what made the plan.

- `execution`: what waits for what, by the referee's own rules
- `gpu_clock`: the clock of one GPU over time
- `replay`: iterations back to back, with lags
"""

from __future__ import annotations

__all__: list[str] = []
