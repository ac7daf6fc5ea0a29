"""The planner's end of the pipe: `python -m joulepath_operator.planning.child` answers one request and ends."""

from __future__ import annotations

import os
import pickle
import sys

from joulepath_operator.planning.compute import compute

__all__: list[str] = []

if __name__ == "__main__":
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # LAPACK prints where it fails: that is no part of the answer
        pickle.dump(compute(pickle.load(sys.stdin.buffer)), answer)
