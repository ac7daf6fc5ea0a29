"""The planner's end of the pipe: `python -m joulepath_operator.planning.child` answers one request and ends."""

from __future__ import annotations

import pickle
import sys

from joulepath_operator.planning.compute import compute

__all__: list[str] = []

if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(compute(pickle.load(sys.stdin.buffer))))
