"""The story of an EnergyPlan: from all that is seen of it to what its cluster should hold next.

- `decide`: the whole of it, and its first chapter
- `case`: what the chapters share
- `status`: how a status is told
- `objections`: what is asked for that can't be had
- `gathering`: why ranks of a job don't report
- `absences`: how it is told that pods have no trainer
- `reuse`: which measurements a run starts from
- `setbacks`: what is tried again before it is final
- `sweeping`: the second chapter, until there is a profile
- `outcomes`: what may become of a plan, but to be played as it is
- `delivery`: the third, from a profile to measured savings
"""

from __future__ import annotations

__all__: list[str] = []
