"""The process of a node that sets clocks: it follows the ranks through their shared pages, and orders the clocks of
their GPUs as the plan of their job says. It never holds a clock without a lease, and every failure ends a lease.

It has the one capability that clocks need, and nothing else: no token, no network, no package but pynvml. What is to be
measured, computed or asked, the agent does, in a process of its own (`channel`): when that dies, clocks go on.
"""

from __future__ import annotations

__all__: list[str] = []
