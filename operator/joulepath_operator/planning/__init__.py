"""The planner, asked in a process of its own: nothing else of the operator loads it.

- `turns`: whose turn it is
- `pool`: starts that process, waits for it, and ends it
- `child`: the other end, which reads a request and writes the answer
- `model`: the pipeline that is planned on, and whether it is the job's
- `compute`: from a request in the contract's words to the planner's plan and back
- `frontier`: the frontier that belongs to it
- `stretching`: how far pipelines may be stretched while others are held up
- `surveying`: the same for what is known so far, and what to measure next
"""

from __future__ import annotations

__all__: list[str] = []
