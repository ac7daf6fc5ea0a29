"""The linear program: the least energy for an iteration time, and the seconds that each instruction gets.

- `choice`: which method solves it
- `solution`: what every method is asked, and what it answers
- `ladder`: the columns of a program for HiGHS
- `simplex`: by HiGHS, with a start for every instruction
- `cuts`: by HiGHS, with the paths that matter
- `whole`: by HiGHS, with clocks that aren't mixed
- `relaxation`: as arrays, and the bound that prices prove
- `interior`: by an interior-point method
- `normal`: its normal equations
- `steps`: its steps of the hulls
- `window`: a few instructions with whole clocks, by HiGHS
"""

from __future__ import annotations

__all__: list[str] = []
