"""What pods may ask of the socket."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.limits import Allowance, PodLimits
from joulepath_clocks.peers.refusal import PeerRefusedError

steps = st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 50)), max_size=60)


@given(steps)
def test_no_more_is_spent_than_the_burst_what_grew_back_and_one_thing(asked: list[tuple[float, float]]) -> None:
    allowance, now, spent = Allowance(burst=20.0, per_s=3.0, at_s=0.0), 0.0, 0.0
    for later_s, amount in asked:
        now += later_s
        if allowance.ready(now):
            allowance.spend(amount)
            spent += amount
        assert spent <= 20.0 + 3.0 * now + 50 + 1e-6


@given(st.floats(1e-3, 1e6))
def test_what_was_spent_grows_back(amount: float) -> None:
    allowance = Allowance(burst=20.0, per_s=4.0, at_s=0.0)
    allowance.spend(amount)
    assert allowance.ready(amount / 4.0 + 0.1)


def test_a_pod_that_has_too_many_connections_may_connect_again_once_one_is_closed() -> None:
    limits = PodLimits(replace(BUDGET, connections_per_pod=2, connections=3))
    limits.connect("a", 0.0)
    limits.connect("a", 0.0)
    for pod, refused in (("a", True), ("b", False), ("c", True)):
        if refused:
            with pytest.raises(PeerRefusedError, match="TooManyConnections"):
                limits.connect(pod, 0.0)
        else:
            limits.connect(pod, 0.0)
    limits.disconnect("a")
    limits.connect("a", 0.0)


def test_what_is_known_of_a_pod_is_forgotten_when_it_may_do_all_again() -> None:
    limits = PodLimits(replace(BUDGET, connects_burst=1.0, connects_per_s=0.1))
    limits.connect("a", 0.0)
    limits.forget(9.0)
    with pytest.raises(PeerRefusedError, match="TooOften"):
        limits.connect("a", -0.0)
    limits.forget(30.0)
    limits.connect("a", 30.0)
