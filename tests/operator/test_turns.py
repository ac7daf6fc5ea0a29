"""Whose turn it is to have something computed."""

from __future__ import annotations

import asyncio

from joulepath_operator.planning.turns import Turns


class Stage:
    """Notes who has a turn, each until it is told to end."""

    def __init__(self, most: int) -> None:
        self.turns, self.now, self.order = Turns(most), set[str](), list[str]()
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, *, later: bool = False) -> None:
        """`a1` is the first of a."""
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._have(name, later))
        await self.settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _have(self, name: str, later: bool) -> None:
        async with self.turns.turn(name[0], later=later):
            self.now.add(name)
            self.order.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.now.remove(name)


def test_no_more_than_so_many_have_one_at_a_time() -> None:
    async def play() -> None:
        stage = Stage(2)
        for name in ("a1", "a2", "a3"):
            await stage.ask(name)
        assert stage.now == {"a1", "a2"}
        await stage.end("a1")
        assert stage.now == {"a2", "a3"}

    asyncio.run(play())


def test_a_hundred_of_one_namespace_keep_another_s_waiting_for_one_turn_only() -> None:
    async def play() -> None:
        for most in (1, 2):
            stage = Stage(most)
            for number in range(9):
                await stage.ask(f"a{number}")
            for name in ("b0", "b1", "c0"):
                await stage.ask(name)
            while len(stage.order) < 12:
                await stage.end(next(name for name in stage.order if name in stage.now))
            others = [at for at, name in enumerate(stage.order) if name[0] != "a"]
            assert others[0] == most, "the next that ends makes room"
            assert others[-1] <= most + 4

    asyncio.run(play())


def test_what_may_come_later_waits_for_all_else_and_leaves_a_place_free() -> None:
    async def play() -> None:
        stage = Stage(2)
        await stage.ask("a1", later=True)
        await stage.ask("a2", later=True)
        assert stage.now == {"a1"}, "the other place is for what can't wait"
        await stage.ask("b1")
        await stage.ask("b2")
        assert stage.now == {"a1", "b1"}
        await stage.end("a1")
        assert stage.now == {"b1", "b2"}
        await stage.end("b1")
        await stage.end("b2")
        assert stage.now == {"a2"}
        alone = Stage(1)
        await alone.ask("a1", later=True)
        assert alone.now == {"a1"}

    asyncio.run(play())


def test_who_asks_no_more_makes_room_whether_it_waits_or_has_its_turn() -> None:
    async def play() -> None:
        stage = Stage(1)
        for name in ("a1", "a2", "b1"):
            await stage.ask(name)
        await stage.cancel("b1")
        await stage.cancel("a1")
        assert stage.now == {"a2"}
        await stage.end("a2")
        await stage.ask("a3")
        assert stage.now == {"a3"}
        await stage.ask("a4")
        stage._tasks["a4"].cancel()
        await stage.end("a3")
        await stage.ask("a5")
        assert stage.now == {"a5"}, "also one that has gone just when it was its turn"

    asyncio.run(play())
