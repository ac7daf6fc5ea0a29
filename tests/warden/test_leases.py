"""Who holds what, and until when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulepath_warden.leases import Leases
from joulepath_warden.wire import DEADLINE_S


def test_a_lease_lasts_from_beat_to_beat_and_is_revoked_at_its_deadline() -> None:
    leases = Leases()
    leases.keep(["a", "b"], 10.0)
    leases.keep(["a"], 11.0)
    assert leases.revoke(10.0 + DEADLINE_S) == ("b",)
    assert (leases.revoked, set(leases)) == (("b",), {"a", "b"})
    assert leases.revoke(11.0 + DEADLINE_S / 2) == ()
    assert leases.revoke() == ("a",)


@given(st.lists(st.sampled_from(["keep", "revoke", "later"])))
def test_a_lease_that_was_revoked_stays_so_until_it_is_given_back(steps: list[str]) -> None:
    leases, now_s = Leases(), 0.0
    leases.keep(["a"], now_s)
    leases.revoke()
    for step in steps:
        match step:
            case "keep":
                leases.keep(["a"], now_s)
            case "revoke":
                assert leases.revoke(now_s) == ()
            case _:
                now_s += DEADLINE_S
        assert leases.revoked == ("a",)
    leases.end("a")
    leases.keep(["a"], now_s)
    assert (leases.revoked, len(leases)) == ((), 1)
