"""What reports say, as numbers.

- `order`: what a rank runs in an iteration
- `clocks`: which clocks a sweep measures, in which order
- `coverage`: how much of a sweep is measured
- `timing`: when instructions ran, and the delays between them
- `profile`: what the ranks measured, as a profile of the pipeline
- `agreement`: whether the profile of an earlier run still holds
- `switching`: what switches of clock cost by themselves
- `activation`: from which iteration on a new plan holds
- `joining`: blocks of a plan, all ranks together
- `savings`: plan blocks against the control blocks beside them
- `stragglers`: which pipelines are held up, and by how much
"""

from __future__ import annotations

__all__: list[str] = []
