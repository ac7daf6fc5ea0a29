"""The time to live of plans: expired or not, from times alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.ranks.lifetime import TimeToLive

SECONDS = st.floats(0, 1e6)


@given(SECONDS, st.lists(SECONDS, min_size=1), SECONDS)
def test_plans_expire_once_no_news_came_for_their_time_to_live_and_never_before(
    lives_s: float, news_s: list[float], now_s: float
) -> None:
    life = TimeToLive(lives_s)
    assert life.expired(now_s), "nothing was heard yet"
    for at_s in news_s:
        life.renew(at_s)
    assert bool(life.expired(now_s)) is (now_s - max(news_s) > lives_s)


def test_the_reason_stays_the_same_while_time_goes_on() -> None:
    life = TimeToLive(900.0)
    life.renew(0.0)
    assert life.expired(901.0) == life.expired(5000.0) != ""
