"""Resets under way."""

from __future__ import annotations

import threading
from collections import Counter

from joulepath_warden.driver import AbsentError, DriverError
from joulepath_warden.resets import Resets
from tests.agent.room import wait_until


def test_what_fails_is_tried_again_and_delays_no_other() -> None:
    tries, gate = Counter[str](), threading.Event()

    def reset(entry: str) -> None:
        tries[entry] += 1
        if entry == "hangs":
            gate.wait()
        elif entry == "absent":
            raise AbsentError("gone")
        elif entry == "fails" and tries[entry] < 3:
            raise DriverError("not now")

    resets, done = Resets(reset, lambda: None), list[str]()
    for entry in ("hangs", "absent", "fails", "works"):
        resets.ask(entry)

    def are_done(*entries: str) -> bool:
        done.extend(resets.take_done())
        return set(done) == set(entries)

    wait_until(lambda: are_done("fails", "works"), "two are done")
    assert tries["fails"] == 3
    assert resets.under_way == {"hangs"}
    gate.set()
    wait_until(lambda: are_done("fails", "works", "hangs"), "three are done")
    assert len(done) == 3
    assert not resets.under_way


def test_what_is_asked_for_during_a_reset_is_done_once_more() -> None:
    begun, gate = threading.Semaphore(0), threading.Semaphore(0)

    def reset(_: str) -> None:
        begun.release()
        gate.acquire()

    resets = Resets(reset, lambda: None)
    resets.ask("a")
    begun.acquire()
    resets.ask("a")
    gate.release()
    begun.acquire()
    assert resets.take_done() == ()
    gate.release()
    wait_until(lambda: resets.take_done() == ("a",), "it is done")
