"""`joulepath-agent doctor`: what this node's GPUs can do for plans, measured in minutes and written down for the agent.

It needs the standard library and pynvml only, so that it also runs with a Python that has torch and little else
(`python -m joulepath_agent.doctor`). It examines GPUs that nobody computes on, each clock leased of the warden.

- `figures`: what is measured, as values
- `record`: them as a file, which the agent reads
- `verdicts`: what they mean for plans
- `table`: that, for people
- `board`: what NVML tells beside clocks
- `hold`: the lease of a GPU, and its way back to default clocks
- `load`: the process that gives a GPU work
- `crossing`: when a clock that was ordered came in force
- `checks`: what is measured on one GPU
- `examination`: a GPU after all of these
- `pairs`: what takes two GPUs, or a process that is killed
- `victim`: the process that is killed
- `__main__`: the command
"""

from __future__ import annotations

__all__: list[str] = []
