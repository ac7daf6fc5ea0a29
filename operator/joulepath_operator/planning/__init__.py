"""The planner, asked in a process of its own: nothing else of the operator loads it.

- `pool`: starts that process, waits for it, and ends it
- `child`: the other end, which reads a request and writes the answer
- `compute`: from a request in the contract's words to the planner's plan and back
- `surveying`: the same for what is known so far, and what to measure next
"""

from __future__ import annotations

__all__: list[str] = []
