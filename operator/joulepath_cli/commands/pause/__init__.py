"""`joulepath pause`: all GPUs of a cluster at default clocks, now; `joulepath resume` ends it.

- `command`: what is asked, and the exit status
- `switch`: what is written, and what is waited for
- `appliers`: who else writes the policy, and may undo it
- `nodes`: what the agents of all nodes say of it
"""

from __future__ import annotations

from joulepath_cli.commands.pause.command import add_arguments, run

__all__ = ["add_arguments", "run"]
