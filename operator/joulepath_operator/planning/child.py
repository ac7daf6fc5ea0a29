"""The planner's end of the pipe: `python -m joulepath_operator.planning.child` answers one request and ends."""

from __future__ import annotations

import os
import pickle
import sys

from joulepath_operator.facts.request import Answer, Request, SurveyRequest
from joulepath_operator.planning.compute import compute
from joulepath_operator.planning.surveying import look

__all__ = ["answer"]


def answer(request: Request) -> Answer:
    """Whatever the operator asks."""
    return look(request) if isinstance(request, SurveyRequest) else compute(request)


if __name__ == "__main__":
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as pipe:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # LAPACK prints where it fails: that is no part of the answer
        pickle.dump(answer(pickle.load(sys.stdin.buffer)), pipe)
