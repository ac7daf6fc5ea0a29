"""The node agent: one on each node, the only part of Joulepath with privileges.

It follows the ranks on its node through their shared pages, sets the clocks of their GPUs as the plan of their job
says, and measures what that costs and saves. It never holds a clock without a lease, and every failure ends a lease.
"""

from __future__ import annotations

__all__: list[str] = []
