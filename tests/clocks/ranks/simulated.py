"""Simulated jobs: one rank, closed loop, through the real conductor and its guards. Tests and `make bench-guard`.

An iteration takes a second, times what the scenario says of its number and arm, times noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_rules import Arm, Blocks, Plan, Purpose, RankState, StagePlan, arm_of
from joulepath_trainer.wire.page import Ending, MarkerEntry, MarkerEvent

__all__ = [
    "Evaluations",
    "Noise",
    "Slowness",
    "Story",
    "burst",
    "bursts",
    "drift",
    "evaluations",
    "plan",
    "simulate",
    "slow_plan",
]

Slowness = Callable[[int, Arm], float]
"""Factor on the second that an iteration takes, by its number and arm."""
Evaluations = Callable[[int], float]
"""Seconds of the evaluation after an iteration, by its number; 0 where there is none."""


def plan(pairs: int, length: int = 10, every: int | None = None, **changes: Any) -> Plan:
    """In force from iteration 0 on, said to cost no time."""
    fields: dict[str, Any] = {
        "purpose": Purpose.ENFORCE,
        "hash": "one",
        "activate_at": 0,
        "stages": (StagePlan(stage=0, order=("F0",), clocks_mhz=(900,), durations_s=(1.0,)),),
        "default_clock_mhz": 1410,
        "blocks": Blocks(iterations=length, pairs=pairs, every=every),
        "control_iteration_time_s": 1.0,
        "plan_iteration_time_s": 1.0,
        "allowed_slowdown": 0.0,
    }
    return Plan(**{**fields, **changes})


@dataclass(frozen=True)
class Noise:
    """Of iterations: its standard deviation, and how much of one's deviation the next one has: AR(1)."""

    deviation: float = 0.01
    memory: float = 0.0


@dataclass
class Story:
    """What became of a plan."""

    refused_at: int | None = None
    why: str = ""
    trips: list[int] = field(default_factory=list)
    arms: list[Arm] = field(default_factory=list)
    """Of all iterations."""
    pairs: int = 0
    """That the slow guard has compared."""


def simulate(
    spec: Plan,
    iterations: int,
    slowness: Slowness,
    seed: int = 1,
    noise: Noise = Noise(),
    enough: int | None = None,
    jump: bool = False,
    evaluates: Evaluations | None = None,
    marked: bool = True,
    disturbs: float = 0.0,
    **known: Any,
) -> Story:
    """What the guards decide is what the next iteration runs; `known` is what the conductor knows beside.

    enough: whole pairs after which they become sparse, as an operator would have it, two blocks later.
    jump: over the iterations between sparse pairs, but for the last ten, as if their markers had been missed.
    evaluates: after some iterations. marked: by the trainer; an older one doesn't. disturbs: by how much longer the
        iteration after that lasts.
    """
    player, chance, story, now_s = Conductor(0, (0,), UpLags(0.01), **known), random.Random(seed), Story(), 0.0
    player.set_plan(spec)
    off, fresh = 0.0, noise.deviation * math.sqrt(1 - noise.memory**2)
    number = -1
    while (number := number + 1) < iterations:
        if enough is not None and spec.sparse_from is None and len(player._slow_guard._seen) >= enough:
            assert spec.blocks is not None
            spec = replace(spec, sparse_from=number + 2 * spec.blocks.iterations)
            player.set_plan(spec)
        over = jump and player.applied.block < 0  # a block's last iteration ends with the begin of the next one
        if over and (ahead := _next_block(spec, number) - 10) > number:
            number, off = ahead, chance.gauss(0.0, noise.deviation)
        asking, pairs = player.reason, len(player._slow_guard._seen)
        player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_BEGIN, "", 0, 0), now_s)
        if player.state is RankState.REFUSED:
            story.refused_at, story.why, story.pairs = number, player.reason, pairs
            return story
        if player.reason != asking and player.reason.endswith("to blame"):
            story.trips.append(number)
        story.arms.append(player.applied.arm)
        off = noise.memory * off + chance.gauss(0.0, fresh)
        disturbed = evaluates is not None and bool(evaluates(number - 1))
        now_s += slowness(number, player.applied.arm) * (1 + off) * (1 + disturbs * disturbed)
        if evaluates is not None and (evaluation_s := evaluates(number)):
            for ending in (Ending.WHOLE, Ending.PARTED) if marked else ():
                player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_END, "", 0, ending), now_s)
            now_s += evaluation_s
    story.pairs = len(player._slow_guard._seen)
    return story


def _next_block(spec: Plan, number: int) -> int:
    """The first iteration from this one on that is measured in a block."""
    assert spec.blocks is not None
    while arm_of(spec, number)[1] < 0:
        number += spec.blocks.iterations
    return number


def slow_plan(slowdown: float, since: int = 0) -> Slowness:
    """A plan that costs so much time, from an iteration on."""
    return lambda number, arm: 1 + slowdown if arm is Arm.PLAN and number >= since else 1.0


def evaluations(every: int, seconds: float, spread: float = 0.0, seed: int = 1) -> Evaluations:
    """After each of so many iterations, of so many seconds and more or less by up to a share of them."""
    chance = random.Random(seed)
    lengths: dict[int, float] = {}
    return lambda number: (
        0.0 if (number + 1) % every else lengths.setdefault(number, seconds * (1 + chance.uniform(-spread, spread)))
    )


def drift(per_1000: float = 0.02, swing: float = 0.02, period: int = 700) -> Slowness:
    """Of the job itself: ever slower, and to and fro with the room's temperature."""
    return lambda number, _: (1 + per_1000 * number / 1000) * (1 + swing * math.sin(2 * math.pi * number / period))


def burst(first: int, last: int, factor: float = 1.3) -> Slowness:
    """Of a neighbour, in all arms."""
    return lambda number, _: factor if first <= number <= last else 1.0


def bursts(seed: int, gap: float, length: float, factor: float = 1.3) -> Slowness:
    """Of a neighbour that comes and goes, mean iterations between and during its visits."""
    chance = random.Random(seed)
    states: list[bool] = [False]

    def slow(number: int, _: Arm) -> float:
        while len(states) <= number:
            states.append(chance.random() < (1 - 1 / length if states[-1] else 1 / gap))
        return factor if states[number] else 1.0

    return slow
