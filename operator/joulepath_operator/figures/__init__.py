"""What reports say, as numbers.

- `order`: what a rank runs in an iteration
- `clocks`: the sweep of clocks that profiles a running job
- `profile`: what the ranks measured, as a profile of the pipeline
- `savings`: plan blocks against the control blocks beside them
"""

from __future__ import annotations

__all__: list[str] = []
