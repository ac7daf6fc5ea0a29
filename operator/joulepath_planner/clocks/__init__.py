"""From the seconds of the linear program to clocks that a GPU has.

- `timing`: earliest and latest starts while durations grow
- `rounding`: where each instruction has a clock of its own
- `reclaim`: where groups share theirs
- `repair`: what to raise where a replay passes the deadline
- `switches`: the fewest switches at equal cost
"""

from __future__ import annotations

__all__: list[str] = []
