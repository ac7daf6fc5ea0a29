"""The conductor of one rank: markers and a plan in, wishes for its GPU's clock out. Pure; time comes with the markers.

A plan is staged when the rank can play it, and joined at the begin of a block. Its instructions run at their clocks, by
the rule of `switching`. Sweeps hold one clock from the begin of a block's first iteration, or have two take turns, to
tell what switches cost. Everything else, and everything doubtful, runs at default clocks, with a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.wish import DEFAULT, Wish, height
from joulepath_clocks.ranks.guard import Guard, Verdict, Word
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_clocks.ranks.score import Score, read_score
from joulepath_clocks.ranks.slow_guard import SlowGuard
from joulepath_clocks.ranks.switching import is_short_tail, wish_at_begin, wish_at_end, wish_in_tail
from joulepath_rules import (
    PAIR,
    TAIL_LAGS,
    Applied,
    Arm,
    Instruction,
    Length,
    Plan,
    Purpose,
    RankState,
    arm_of,
    clock_in_turn,
    held_clock_mhz,
    next_boundary,
)
from joulepath_trainer.wire.page import Ending, MarkerEntry, MarkerEvent

__all__ = ["OVERRUN", "Conductor"]

_RELEASE: Final = Wish(DEFAULT)
_DEFAULT_CLOCKS: Final = Applied(Arm.DEFAULT)
_SWEEP_PATIENCE: Final = 0.25
"""Of an iteration, that a sweep's clock stays for longer than the usual tail: a host that is late now and then must not
have clocks measured that are on their way."""
OVERRUN: Final = 2.0
"""Times its predicted length, after which an iteration's first instruction is none: without a pipeline it follows right
on the optimizer, and an evaluation or a checkpoint may come before it."""


@dataclass(slots=True)
class Conductor:
    """Decides for one rank. Its public fields are what its owner knows and keeps up to date."""

    attempt: int
    stages: tuple[int, ...]
    lags_up: UpLags
    tail_s: float | None = None
    """Least seconds from the last instruction to the next iteration; None while unknown."""
    usual_tail_s: float = 0.0
    """Median of the same."""
    control_time_s: float = 0.0
    order: tuple[Instruction, ...] = ()
    """The order of instructions as it was last recorded; empty while unknown."""
    expired: str = ""
    """Why its plan may be played no more for now; empty while it may."""
    most_slowdown: float = 0.5
    """How much longer than at default clocks any plan may let an iteration last, as a fraction."""

    state: RankState = field(init=False, default=RankState.OBSERVING)
    why: Reason | None = field(init=False, default=None)
    """Why it is at default clocks although a plan is there, or why that is refused; None without a reason."""
    staged_hash: str | None = field(init=False, default=None)
    staged_at_iteration: int | None = field(init=False, default=None)
    applied_hash: str | None = field(init=False, default=None)
    iteration: int = field(init=False, default=0)
    applied: Applied = field(init=False, default=_DEFAULT_CLOCKS)
    """What the iteration that runs now is."""
    cut: Applied | None = field(init=False, default=None)
    """The same of one that is over before the next begins: what follows, at default clocks, isn't training."""
    _plan: Plan | None = field(init=False, default=None)
    _withheld: bool = field(init=False, default=False)
    _score: Score | None = field(init=False, default=None)
    _join_at: int | None = field(init=False, default=None)
    _guard: Guard = field(init=False, default_factory=Guard)
    _slow_guard: SlowGuard = field(init=False, default_factory=SlowGuard)
    _position: int = field(init=False, default=0)
    _begun_at_s: float | None = field(init=False, default=None)
    _computing: bool = field(init=False, default=False)
    """Whether an instruction has begun and not ended."""
    _ended: bool = field(init=False, default=False)
    """Whether the iteration has."""
    _own_s: float | None = field(init=False, default=None)
    """What it took until something else began behind its end; None where nothing did."""
    _disturbed: bool = field(init=False, default=False)
    """Whether something else came before it, and what the one before took is known all the same."""
    _refused: dict[str, Reason] = field(init=False, default_factory=dict)

    @property
    def position(self) -> tuple[int, int]:
        """The iteration that it is at, and how many instructions of the plan it has ended there."""
        return self.iteration, self._position

    @property
    def length(self) -> Length:
        """What is known of how long the iteration that runs takes, once the next one begins."""
        if self.cut is None:
            return Length.WHOLE
        return Length.UNKNOWN if self._own_s is None else Length.OWN

    @property
    def reason(self) -> str:
        """The same in words; empty without one, and for what is usual, as a report is written for each that is new."""
        return "" if self.why is None or self.why.end.is_usual else str(self.why)

    def raise_in_s(self, computing: bool) -> float:
        """Seconds from the begin of the instruction that comes next to a raise that goes by it; inf without one.

        `computing`: whether another one runs now.
        """
        score, at = self._score, self._position + computing
        if self.applied.arm is not Arm.PLAN or score is None or at >= len(score.clocks_mhz):
            return math.inf
        after_mhz = self._after(score, at)
        if height(after_mhz) <= height(score.clocks_mhz[at]):
            return math.inf
        return max(0.0, score.durations_s[at] - self.lags_up.to(after_mhz))

    def set_plan(self, plan: Plan | None) -> Wish | None:
        """The plan of this rank's job as it is now; None if there is none. Idempotent."""
        waiting = plan is not None and self.staged_hash is None and self.state is not RankState.REFUSED
        if plan == self._plan and not waiting and not self._withheld:
            return None
        self._withheld = False
        before, self._plan = self._plan, plan
        if plan is not None and before is not None and plan.hash == before.hash and self.staged_hash == plan.hash:
            if plan.activate_at != before.activate_at:
                self._join_at = None if plan.activate_at is None else next_boundary(plan, self.iteration)
                return self._default(Reason(End.PLAN_CHANGED, f"it begins at iteration {plan.activate_at}"))
            return None
        self._forget()
        wish = self._default(None)
        return wish if plan is None else self._stage(plan)

    def withhold(self, reason: Reason) -> Wish:
        """Its job has a plan that nobody may play, for this reason."""
        self.set_plan(None)
        self._withheld = True
        return self._default(reason)

    def restage(self) -> Wish | None:
        """Tries again to stage a plan that couldn't be: the order of instructions has become known."""
        return self.set_plan(self._plan)

    def on_event(self, entry: MarkerEntry, at_s: float) -> Wish | None:
        """A marker that the GPU has passed, at the agent's monotonic time; the wish that follows, if any."""
        broken_off, self._computing = self._computing, entry.event is MarkerEvent.BEGIN
        ended, self._ended = self._ended, entry.event is MarkerEvent.STEP_END
        if entry.event is MarkerEvent.STEP_BEGIN:
            return self._begin_iteration(entry.iteration, at_s)
        if entry.ending == Ending.PARTED:
            if ended and self.cut is None and self._begun_at_s is not None:
                self._own_s = at_s - self._begun_at_s
            what = f"iteration {self.iteration} is followed by an evaluation, or by a step that isn't as the others"
            return self._cut(Reason(End.OTHER_WORK, what))
        if self._ended and (broken_off or entry.ending):
            what = f"iteration {self.iteration} ended sooner than it should: it evaluates, or has failed"
            return self._cut(Reason(End.STEP_BROKEN_OFF, what))
        if self.applied.arm is Arm.SWEEP and self._plan is not None:
            return self._sweep(self._plan, entry, at_s)
        if self.applied.arm is not Arm.PLAN or self._score is None or entry.event is MarkerEvent.STEP_END:
            return None
        return self._play(self._score, entry, at_s)

    def lost(self) -> Wish:
        """Markers were missed: default clocks until the next iteration, which no block then counts."""
        return self._default(Reason(End.MARKERS_LOST, "more markers were passed than the shared page holds"))

    def fall_silent(self, reason: Reason) -> None:
        """No marker has come for long: between two iterations it evaluates or saves, in one it may be anything."""
        if not self._ended:
            self.stop(reason)
            return
        if self.applied_hash is not None:
            self.state, self.applied_hash = RankState.STAGED, None
        self._cut(reason)

    def stop(self, reason: Reason) -> Wish:
        """Default clocks: for as long as this plan lasts if the reason is final, else until the next block begins."""
        plan = self._plan
        if reason.final:
            if plan is not None:
                self._refused = {plan.hash: reason}
            self._forget()
            self.state = RankState.REFUSED
        elif plan is not None and plan.activate_at is not None:
            self._join_at = next_boundary(plan, self.iteration)
            self._slow_guard.pause()
        if self.applied_hash is not None:  # no iteration may begin any more to say so
            self.state, self.applied_hash = RankState.STAGED, None
        return self._default(reason)

    # staging

    def _forget(self) -> None:
        self._score, self._join_at, self._guard, self._slow_guard = None, None, Guard(), SlowGuard()
        self.staged_hash = self.staged_at_iteration = self.applied_hash = None
        self.state, self.why = RankState.OBSERVING, None

    def _stage(self, plan: Plan) -> Wish:
        if plan.hash in self._refused:
            self.state = RankState.REFUSED
            return self._default(self._refused[plan.hash])
        if plan.attempt != self.attempt:
            what = f"the plan is for attempt {plan.attempt}, this is {self.attempt}"
            return self._default(Reason(Obstacle.ATTEMPT_MISMATCH, what))
        if plan.purpose is Purpose.ENFORCE:
            score = read_score(plan, self.stages, self.order)
            if isinstance(score, Reason):
                return self._default(score)
            # One of default clocks only, as Observe's, is nothing to play: such blocks are left alone like control's.
            self._score = score if any(score.clocks_mhz) else None
        self.staged_hash, self.staged_at_iteration = plan.hash, self.iteration
        self._join_at = None if plan.activate_at is None else next_boundary(plan, self.iteration)
        self.state, self.why = RankState.STAGED, None
        return _RELEASE

    # an iteration

    def _begin_iteration(self, iteration: int, at_s: float) -> Wish | None:
        verdict = self._guarded(iteration, at_s)
        self.iteration, self._begun_at_s, self._position, self.cut = iteration, at_s, 0, None
        self._disturbed, self._own_s = self._own_s is not None, None
        if verdict is not None:
            if verdict.reason.final:
                return self.stop(verdict.reason)
            self._obey(verdict)
        if self.expired and self.staged_hash is not None:
            self.stop(Reason(End.PLAN_EXPIRED, self.expired))
        self.applied = self._arm(iteration)
        if self.applied.arm is Arm.DEFAULT:
            if self.state is not RankState.REFUSED and self.staged_hash is not None:
                self.state, self.applied_hash = RankState.STAGED, None
            return _RELEASE
        self.applied_hash, self.why = self.applied.hash, None
        self.state = RankState.SWEEPING if self.applied.arm is Arm.SWEEP else RankState.ENFORCING
        if self.applied.arm is Arm.PLAN and self._score is not None:
            return Wish(self._score.clocks_mhz[0])
        if self.applied.arm is Arm.SWEEP and self._plan is not None:
            return Wish(clock_in_turn(self._plan, iteration, 0), measure=self.applied.clock_mhz is not None)
        return Wish(DEFAULT)

    def _guarded(self, iteration: int, at_s: float) -> Verdict | None:
        if self._plan is None or self._begun_at_s is None or iteration != self.iteration + 1:
            return None
        period_s, word, length = at_s - self._begun_at_s, Word.of(self._plan, self.most_slowdown), self.length
        if length is Length.OWN and self._own_s is not None:
            period_s = self._own_s
        tells = length is not Length.UNKNOWN and not self._disturbed
        if self._guard.asking:
            return self._guard.default_period(word, period_s) if tells else None
        applied = self.cut or self.applied
        slow = self._slow_guard.period(applied, length, period_s, word.allowed)
        if slow is not None and self._score is not None:
            return Verdict(Reason(End.SLOW_PLAN, slow, final=True))
        if (blind := self._slow_guard.blind) and self._score is not None:
            return Verdict(Reason(End.PLAN_UNWATCHED, blind, final=True))
        if not tells:
            return None
        if applied.arm is Arm.CONTROL or self._is_ahead(self._plan):
            self._guard.control_period(self.iteration, period_s)
        if applied.arm is not Arm.PLAN:
            return None
        return self._guard.plan_period(self._plan, word, self.control_time_s, self.iteration, period_s)

    def _is_ahead(self, plan: Plan) -> bool:
        """Whether the last iteration was one before its plan begins, at default clocks on every rank: where another
        pipeline is slower than it was, those say so first."""
        staged = self.staged_hash is not None and self.applied.arm is Arm.DEFAULT
        return staged and (plan.activate_at is None or self.iteration < plan.activate_at)

    def _obey(self, verdict: Verdict) -> None:
        """Pauses by itself, since the guard is asking then, or puts off where the plan joins again."""
        self.why = verdict.reason
        self._slow_guard.pause()
        if verdict.blocks is not None and self._plan is not None:
            self._join_at = self.iteration
            for _ in range(verdict.blocks):
                self._join_at = next_boundary(self._plan, self._join_at)

    def _arm(self, iteration: int) -> Applied:
        plan = self._plan
        if plan is None or self.staged_hash is None or self._join_at is None or iteration < self._join_at:
            return _DEFAULT_CLOCKS
        if self._guard.asking:
            return _DEFAULT_CLOCKS
        arm, block = arm_of(plan, iteration)
        if arm is Arm.DEFAULT:
            return _DEFAULT_CLOCKS
        if arm is Arm.SWEEP and plan.sweep is not None:
            return Applied(arm, block, plan.hash, held_clock_mhz(plan.sweep, block), plan.sweep.iterations_per_block)
        clock = None if arm is Arm.PLAN else DEFAULT
        return Applied(arm, block, plan.hash, clock, plan.blocks.iterations if plan.blocks and block >= 0 else 0)

    def _sweep(self, plan: Plan, entry: MarkerEntry, at_s: float) -> Wish | None:
        if entry.event is MarkerEvent.END:
            self._position += 1
        clock_mhz = clock_in_turn(plan, self.iteration, self._position)
        if entry.event is MarkerEvent.STEP_END and clock_mhz != DEFAULT and self.tail_s is not None:
            patience_s = self.usual_tail_s + _SWEEP_PATIENCE * self.control_time_s
            return wish_in_tail(clock_mhz, at_s, patience_s, self.lags_up.to(DEFAULT))
        return Wish(clock_mhz) if entry.event is MarkerEvent.END and self.applied.clock_mhz is None else None

    def _play(self, score: Score, entry: MarkerEntry, at_s: float) -> Wish | None:
        ran = Instruction(entry.stage, entry.kind, entry.microbatch)
        at = self._position
        planned = score.instructions[at] if at < len(score.instructions) else None
        if planned is None or ran != planned.mark or entry.iteration != self.iteration:
            what = (
                f"iteration {self.iteration} ran {ran.name.replace(PAIR, 'a pair with F')} of stage {ran.stage} "
                f"where the plan has {planned.name if planned else 'no more instructions'}"
            )
            return self.stop(Reason(End.ORDER_MISMATCH, what, final=True))
        after_mhz = self._after(score, at)
        if entry.event is MarkerEvent.END:
            self._position += 1
            if self._position == len(score.instructions) and self.tail_s is not None:
                lag_s = self.lags_up.to(DEFAULT)
                usual_s = min(max(self.tail_s, self.usual_tail_s), TAIL_LAGS * lag_s)
                return wish_in_tail(after_mhz, at_s, usual_s, lag_s)
            return wish_at_end(after_mhz)
        duration_s = score.durations_s[at]
        wish = wish_at_begin(score.clocks_mhz[at], after_mhz, at_s, duration_s, self.lags_up.to(after_mhz))
        if at == 0 and wish.now_mhz != DEFAULT and wish.later_mhz is None:
            return Wish(wish.now_mhz, DEFAULT, at_s + OVERRUN * duration_s + self.lags_up.to(DEFAULT))
        return wish

    def _after(self, score: Score, at: int) -> int:
        """The clock after an instruction: the next one's, in this iteration or the next, or that of the tail."""
        if at + 1 < len(score.clocks_mhz):
            return score.clocks_mhz[at + 1]
        if is_short_tail(self.tail_s, self.lags_up.to(DEFAULT)) and self._arm(self.iteration + 1).arm is Arm.PLAN:
            return score.clocks_mhz[0]
        return DEFAULT

    def _cut(self, reason: Reason) -> Wish | None:
        self.cut = self.cut or self.applied
        return None if self.applied.arm is Arm.DEFAULT else self._default(reason)

    def _default(self, reason: Reason | None) -> Wish:
        """Default clocks for the rest of this iteration."""
        self.why, self.applied = reason, _DEFAULT_CLOCKS
        return _RELEASE
