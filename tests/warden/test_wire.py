"""What agent and warden say to each other."""

from __future__ import annotations

import pytest

from joulepath_warden.wire import Answer, Request, Verb


def test_what_is_said_is_heard() -> None:
    request = Request(Verb.GIVE_BACK, ("a", "b"))
    answer = Answer("no", ("a",), ("b",))
    assert (Request.decode(request.encode()), Answer.decode(answer.encode())) == (request, answer)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\xff", b"[]", b"{}", b'{"verb": "beat"}', b'{"verb": "beat", "gpus": [1]}', b'{"verb": 1, "gpus": []}'],
)
def test_what_is_no_request_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.decode(packet)
