"""What figures mean, and the table of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from joulepath_agent.doctor import verdicts
from joulepath_agent.doctor.figures import Examined, Page, Pair, Permission, Spread
from joulepath_agent.doctor.table import WIDTH, table
from joulepath_agent.doctor.verdicts import Finding, Verdict, findings
from joulepath_planner.graph import groups
from tests.agent.doctor.test_record import EMPTY, FULL


def told(found: Examined, what: str) -> Finding:
    """The one finding of that name."""
    (one,) = [finding for finding in findings(found) if finding.what == what]
    return one


@pytest.mark.parametrize("found", [FULL, EMPTY])
def test_a_table_has_all_checks_and_fits_80_columns(found: Examined) -> None:
    lines = table("A" * 30 + ", " + found.uuid * 20, findings(found)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    for what in ("permission", "default clocks", "lag", "energy counter", "blocking power", "stream writes"):
        assert any(line.startswith(what) for line in lines)


def test_what_is_not_measured_says_why() -> None:
    ended = replace(EMPTY, without={"settled": "it needs load", "ended": "it was told to stop"})
    assert told(ended, "default clocks").meaning == "it needs load"
    assert told(ended, "collectives").meaning == "it was told to stop"
    assert {finding.verdict for finding in findings(ended)} == {Verdict.UNKNOWN}


@pytest.mark.parametrize(
    ("change", "what", "verdict", "says"),
    [
        ({"permission": Permission(False, "no CAP_SYS_ADMIN")}, "permission", Verdict.BAD, "CAP_SYS_ADMIN"),
        ({"page": Page(0, 200, True, None)}, "stream writes", Verdict.BAD, "none was seen"),
        ({"page": Page(9, 200, False, Spread(1e-5, 2e-5, 9))}, "stream writes", Verdict.BAD, "don't wait"),
        ({"pairs": (Pair(900, 0, True, 1400, (0.3,), 0),)}, "lag to higher clocks", Verdict.BAD, "1200 ms and longer"),
        ({"pairs": (Pair(900, 0, True, 1400, (), 4),)}, "lag to higher clocks", Verdict.UNKNOWN, "None of 4"),
    ],
)
def test_bad_figures_are_called_bad(change: dict[str, Any], what: str, verdict: Verdict, says: str) -> None:
    finding = told(replace(FULL, **change), what)
    assert finding.verdict is verdict
    assert says in finding.meaning


def test_collectives_are_slowed_down_by_switching_only_beyond_the_slower_clock() -> None:
    assert FULL.collectives is not None
    slow, fast = Spread(0.02, 0.02, 9), Spread(0.01, 0.01, 9)
    by_clock = replace(FULL.collectives, high_s=fast, low_s=slow, switching_s=slow)
    assert told(replace(FULL, collectives=by_clock), "collectives").verdict is Verdict.GOOD
    by_switching = replace(by_clock, switching_s=Spread(0.03, 0.03, 9))
    assert told(replace(FULL, collectives=by_switching), "collectives").verdict is Verdict.BAD


def test_short_instructions_are_what_the_planner_takes_for_short() -> None:
    assert verdicts._PAYS_LAGS == groups._LAGS_PER_CLOCK
