"""`joulepath preflight`: what a cluster lacks for Joulepath, with the remedy.

What was read of the cluster is a frozen value, and what is found is a pure function of it.

- `command`: what is asked, and the exit status
- `cluster`: reads it from the API server
- `facts`: what was read, and what wasn't
- `judge`: all that is found, in the order in which it is told
- `finding`: one thing that was looked at, and the words for it
- `gpus`: which nodes offer GPUs whose clocks may be set
- `nodes`: what these nodes are: label, platform, kernel
- `runtimes`: who can put the trainer into containers there
- `surroundings`: Kubernetes, Pod Security, kinds of jobs, Prometheus
- `release`: Joulepath itself where it is installed, and what it has seen of the driver
- `report`: findings as text and as JSON
"""

from __future__ import annotations

from joulepath_cli.commands.preflight.command import add_arguments, run

__all__ = ["add_arguments", "run"]
