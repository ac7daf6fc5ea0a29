"""What is given: what was measured, what is executed in which order, and how fast clocks switch.

- `text`: a file's text, of a size that can be read
- `instruction`: its kinds, and how it is written
- `zeus`: the rows of Zeus's CSV, and of its dialects
- `profile`: seconds and joules of each (stage, kind) by clock
- `curves`: what seconds and watts most likely are, by points that are few and noisy
- `fit`: the clocks between those that were measured
- `schedule`: the order of instructions on each rank
- `orders`: the schedules that have a name
- `pipeline`: schedule and profile, with what the clocks don't change
- `perseus`: a plan's clocks as Perseus writes them
- `lags`: how long a GPU takes to switch its clock
"""

from __future__ import annotations

__all__: list[str] = []
