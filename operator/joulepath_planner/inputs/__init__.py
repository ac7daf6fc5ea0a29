"""What is given: what was measured, what is executed in which order, and how fast clocks switch.

profile    seconds and joules of each (stage, kind) by clock
fit        the clocks between those that were measured
schedule   an instruction, and the order of them on each rank
orders     the schedules that have a name
pipeline   schedule and profile, with what the clocks don't change
lags       how long a GPU takes to switch its clock
"""

from __future__ import annotations

__all__: list[str] = []
