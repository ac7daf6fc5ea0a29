"""A process that loads one GPU for the doctor. The standard library, the trainer's driver calls, and torch where it is.

It runs with whichever Python has torch, and knows nothing of the agent: orders come as lines of JSON on standard input,
each answered by one on standard output.

- `work`: what a GPU can be given to do
- `torch_work`: that, by torch and CUDA
- `markers`: what stream memory operations and events do and cost
- `serving`: the orders, and the load between them
- `collectives`: all-reduces in a loop, as one of two ranks
"""

from __future__ import annotations

__all__: list[str] = []
