"""Whether a refusal is final, told from its code alone."""

from __future__ import annotations

import pickle

import pytest

from joulepath_operator.facts.refusals import Refusal


@pytest.mark.parametrize("refusal", Refusal)
def test_a_code_in_a_status_tells_what_it_means(refusal: Refusal) -> None:
    assert Refusal.coded(str(refusal)) is refusal
    assert pickle.loads(pickle.dumps(refusal)) is refusal, "the planner's process answers with it"


def test_what_the_next_look_may_find_changed_is_not_final() -> None:
    final = {refusal.value for refusal in Refusal if refusal.final}
    assert final >= {"ModelMismatch", "NotPlannable", "NotWritable", "PlannerDied", "PlannerTimeout"}
    assert final >= {"SweepIncomplete", "TooFewClocks", "RankRefused", "SlowerThanAllowed"}
    assert not final & {"InvalidSpec", "AnnotationMismatch", "GPURefused", "RanksDisagree"}


@pytest.mark.parametrize("code", [None, "NoJob", "GuardTripped"])
def test_other_reasons_are_no_refusals_of_ours(code: str | None) -> None:
    assert Refusal.coded(code) is None
