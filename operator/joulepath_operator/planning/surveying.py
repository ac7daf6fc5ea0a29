"""Between two rounds of a sweep: how well the frontier is known by now, and which clocks to measure next.

Like `compute` it runs in the planner's process, beside the job, which trains at default clocks meanwhile.
"""

from __future__ import annotations

from math import inf

import joulepath_planner as planner
from joulepath_bridge.pipeline import profile_of
from joulepath_operator.facts.request import SurveyRequest, SurveyResult
from joulepath_operator.planning.model import pipeline_on

__all__ = ["look"]


def look(request: SurveyRequest) -> SurveyResult:
    """Takes seconds. What rules a plan out rules this out too: then nothing is known of the frontier."""
    try:
        pipeline = pipeline_on(request, profile_of(request.profile, request.delays.fixed_s))
        found = planner.survey(
            pipeline,
            request.supported_clocks_mhz,
            newest_mhz=request.newest_mhz,
            candidates_mhz=request.candidates_mhz,
            count=request.count,
        )
    except planner.PlannerError:
        return SurveyResult(inf, (), request.delays)
    return SurveyResult(found.uncertainty, found.tells_most_mhz, request.delays)
