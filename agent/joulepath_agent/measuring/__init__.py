"""From what a rank did and what its GPU spent to seconds, watts and joules.

- `applied`: what an iteration ran
- `spans`: when the instructions of an iteration ran, as arrays
- `run`: consecutive iterations of one block, and which of them count
- `block`: what a whole block took
- `power`: the watts of each kind of instruction, by regression
- `pace`: whether its own work takes longer than usual
- `history`: all that is measured of one rank
"""

from __future__ import annotations

__all__: list[str] = []
