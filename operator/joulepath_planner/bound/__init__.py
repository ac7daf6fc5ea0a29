"""What no plan can beat, and what may be asked of that.

- `problem`: a pipeline made ready for the solvers
- `frontier`: the least energy for each iteration time
- `discrete`: the same for whole clocks, where mixtures of two are far below any plan
- `objectives`: its point for a slowdown, a deadline, a budget or a straggler
- `stragglers`: data-parallel pipelines of differing speed
"""

from __future__ import annotations

__all__: list[str] = []
