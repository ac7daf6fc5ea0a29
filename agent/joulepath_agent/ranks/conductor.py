"""The conductor of one rank: events in, wishes for its GPU's clock out. Pure; time comes in with the events.

**Raise early, lower late.** At the end of an instruction the clock of the next one is wished. Where the next one needs
a higher clock, it is wished ahead, at begin + predicted duration - p95 lag of the instruction before (not before its
begin). So an instruction never begins at a lower clock than its own, but for durations that come out shorter.

After the last instruction come gradient reduction and optimizer. If that tail is longer than four lags, or its length
is unknown, it runs at default clocks; else the first clock of the next iteration is wished at once, since two more
switches would cost more than they save. Sweeps hold one clock from the begin of a block's first iteration. Everything
else, and everything doubtful, runs at default clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from joulepath_agent.gpus.wish import DEFAULT, Wish, height
from joulepath_agent.measuring.applied import Applied
from joulepath_agent.ranks.guard import Guard, Verdict
from joulepath_crds import TAIL_LAGS, Arm, Instruction, JobPlanSpec, Purpose, RankState, arm_of, next_boundary
from joulepath_trainer.wire import Entry, Event

__all__ = ["Conductor"]

_RELEASE: Final = Wish(DEFAULT)
_DEFAULT_CLOCKS: Final = Applied(Arm.DEFAULT)


@dataclass(frozen=True, slots=True)
class _Score:
    """A plan as one rank plays it."""

    steps: tuple[Instruction, ...]
    clocks_mhz: tuple[int, ...]
    durations_s: tuple[float, ...]


@dataclass(slots=True)
class Conductor:
    """Decides for one rank. Its public fields are what its owner knows and keeps up to date."""

    attempt: int
    stages: tuple[int, ...]
    lag_up_s: float
    tail_s: float | None = None
    """Seconds from the last instruction to the next iteration; None while unknown."""
    control_time_s: float = 0.0
    order: tuple[Instruction, ...] = ()
    """The order of instructions as it was last recorded; empty while unknown."""

    state: RankState = field(init=False, default=RankState.OBSERVING)
    reason: str = field(init=False, default="")
    staged_hash: str | None = field(init=False, default=None)
    staged_at_iteration: int | None = field(init=False, default=None)
    applied_hash: str | None = field(init=False, default=None)
    iteration: int = field(init=False, default=0)
    applied: Applied = field(init=False, default=_DEFAULT_CLOCKS)
    """What the iteration that runs now is."""
    _plan: JobPlanSpec | None = field(init=False, default=None)
    _score: _Score | None = field(init=False, default=None)
    _join_at: int | None = field(init=False, default=None)
    _guard: Guard = field(init=False, default_factory=Guard)
    _position: int = field(init=False, default=0)
    _begun_at_s: float | None = field(init=False, default=None)
    _refused: dict[str, str] = field(init=False, default_factory=dict)

    def set_plan(self, plan: JobPlanSpec | None) -> Wish | None:
        """The plan of this rank's job as it is now; None if there is none. Idempotent."""
        waiting = plan is not None and self.staged_hash is None and self.state is not RankState.REFUSED
        if plan == self._plan and not waiting:
            return None
        before, self._plan = self._plan, plan
        if plan is not None and before is not None and plan.hash == before.hash and self.staged_hash == plan.hash:
            if plan.activate_at != before.activate_at:
                self._join_at = None if plan.activate_at is None else next_boundary(plan, self.iteration)
                return self._default(f"PlanChanged: it begins at iteration {plan.activate_at}")
            return None
        self._forget()
        wish = self._default("" if plan is None else "PlanChanged: a new plan is being staged")
        return wish if plan is None else self._stage(plan)

    def restage(self) -> Wish | None:
        """Tries again to stage a plan that couldn't be: the order of instructions has become known."""
        return self.set_plan(self._plan)

    def on_event(self, entry: Entry, at_s: float) -> Wish | None:
        """A marker that the GPU has passed, at the agent's monotonic time; the wish that follows, if any."""
        if entry.event is Event.STEP_BEGIN:
            return self._begin_iteration(entry.iteration, at_s)
        if self.applied.arm is not Arm.PLAN or self._score is None or entry.event is Event.STEP_END:
            return None
        return self._play(self._score, entry, at_s)

    def lost(self) -> Wish:
        """Markers were missed: default clocks until the next iteration, which no block then counts."""
        return self._default("MarkersLost: more markers were passed than the shared page holds")

    def suspend(self, reason: str) -> Wish:
        """Its lease has ended, the plan stays: default clocks until the next block begins."""
        if self._plan is not None and self._plan.activate_at is not None:
            self._join_at = next_boundary(self._plan, self.iteration)
        return self._default(reason)

    def refuse(self, reason: str) -> Wish:
        """Default clocks for as long as this plan lasts."""
        if self._plan is not None:
            self._refused = {self._plan.hash: reason}
        self._forget()
        self.state = RankState.REFUSED
        return self._default(reason)

    # staging

    def _forget(self) -> None:
        self._score, self._join_at, self._guard = None, None, Guard()
        self.staged_hash = self.staged_at_iteration = self.applied_hash = None
        self.state, self.reason = RankState.OBSERVING, ""

    def _stage(self, plan: JobPlanSpec) -> Wish:
        if plan.hash in self._refused:
            self.state = RankState.REFUSED
            return self._default(self._refused[plan.hash])
        if plan.attempt != self.attempt:
            return self._default(f"AttemptMismatch: the plan is for attempt {plan.attempt}, this is {self.attempt}")
        if plan.purpose is Purpose.ENFORCE:
            score, why = _read(plan, self.stages, self.order)
            if score is None:
                return self._default(why)
            # One of default clocks only, as Observe's, is nothing to play: such blocks are left alone like control's.
            self._score = score if any(score.clocks_mhz) else None
        self.staged_hash, self.staged_at_iteration = plan.hash, self.iteration
        self._join_at = None if plan.activate_at is None else next_boundary(plan, self.iteration)
        self.state, self.reason = RankState.STAGED, ""
        return _RELEASE

    # an iteration

    def _begin_iteration(self, iteration: int, at_s: float) -> Wish | None:
        verdict = self._guarded(iteration, at_s)
        self.iteration, self._begun_at_s, self._position = iteration, at_s, 0
        if verdict is not None:
            if verdict.action == "refuse":
                return self.refuse(verdict.reason)
            self._obey(verdict)
        self.applied = self._arm(iteration)
        if self.applied.arm is Arm.DEFAULT:
            if self.state is not RankState.REFUSED and self.staged_hash is not None:
                self.state, self.applied_hash = RankState.STAGED, None
            return _RELEASE
        self.applied_hash, self.reason = self.applied.hash, ""
        self.state = RankState.SWEEPING if self.applied.arm is Arm.SWEEP else RankState.ENFORCING
        if self.applied.arm is Arm.PLAN and self._score is not None:
            return Wish(self._score.clocks_mhz[0])
        return Wish(self.applied.clock_mhz or DEFAULT, measure=self.applied.arm is Arm.SWEEP)

    def _guarded(self, iteration: int, at_s: float) -> Verdict | None:
        if self._plan is None or self._begun_at_s is None or iteration != self.iteration + 1:
            return None
        period_s = at_s - self._begun_at_s
        if self._guard.asking:
            return self._guard.default_period(self._plan, period_s)
        if self.applied.arm is Arm.CONTROL:
            self._guard.control_period(self.iteration, period_s)
        if self.applied.arm is not Arm.PLAN:
            return None
        return self._guard.plan_period(self._plan, self.control_time_s, self.iteration, period_s)

    def _obey(self, verdict: Verdict) -> None:
        """Pauses by itself, since the guard is asking then, or puts off where the plan joins again."""
        self.reason = verdict.reason
        if verdict.action == "resume" and self._plan is not None:
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
            return Applied(arm, block, plan.hash, plan.sweep.clocks_mhz[block], plan.sweep.iterations_per_block)
        clock = None if arm is Arm.PLAN else DEFAULT
        return Applied(arm, block, plan.hash, clock, plan.blocks.iterations if plan.blocks and block >= 0 else 0)

    def _play(self, score: _Score, entry: Entry, at_s: float) -> Wish | None:
        step = Instruction(entry.stage, entry.kind, entry.microbatch)
        at = self._position
        expected = score.steps[at] if at < len(score.steps) else None
        if step != expected or entry.iteration != self.iteration:
            return self.refuse(
                f"OrderMismatch: iteration {self.iteration} ran {step.name} of stage {step.stage} where the plan has "
                f"{expected.name if expected else 'no more instructions'}"
            )
        clock, after = score.clocks_mhz[at], self._successor(score, at)
        if entry.event is Event.END:
            self._position += 1
            return Wish(after)
        if height(after) > height(clock):
            return Wish(clock, after, max(at_s, at_s + score.durations_s[at] - self.lag_up_s))
        return Wish(clock)

    def _successor(self, score: _Score, at: int) -> int:
        if at + 1 < len(score.clocks_mhz):
            return score.clocks_mhz[at + 1]
        short_tail = self.tail_s is not None and self.tail_s <= TAIL_LAGS * self.lag_up_s
        if short_tail and self._arm(self.iteration + 1).arm is Arm.PLAN:
            return score.clocks_mhz[0]
        return DEFAULT

    def _default(self, reason: str) -> Wish:
        """Default clocks for the rest of this iteration."""
        self.reason, self.applied = reason, _DEFAULT_CLOCKS
        return _RELEASE


def _read(
    plan: JobPlanSpec, stages: Sequence[int], recorded: tuple[Instruction, ...]
) -> tuple[_Score, str] | tuple[None, str]:
    """The plan as this rank plays it, or why it can't."""
    planned: dict[Instruction, tuple[int, float]] = {}
    steps: list[Instruction] = []
    for part in plan.stages:
        if part.stage not in stages:
            continue
        for name, clock, duration in zip(part.order, part.clocks_mhz, part.durations_s, strict=True):
            unreadable = f"PlanUnreadable: stage {part.stage} has an instruction {name!r} that is unknown or double"
            try:
                step = Instruction.parse(name, part.stage)
            except ValueError:
                return None, unreadable
            if step in planned:
                return None, unreadable
            steps.append(step)
            planned[step] = (DEFAULT if clock >= plan.default_clock_mhz else clock, duration)
    if {step.stage for step in steps} != set(stages):
        return None, f"StageMissing: the plan has stages {sorted({s.stage for s in steps})}, this rank runs {stages}"
    if len(stages) > 1 or recorded:
        if not recorded:
            return None, "OrderUnknown: the order of this rank's stages hasn't been recorded yet"
        if set(recorded) != set(steps) or (len(stages) == 1 and list(recorded) != steps):
            return None, "OrderMismatch: the plan's instructions or their order are not those that this rank runs"
        steps = list(recorded)
    return _Score(tuple(steps), tuple(planned[s][0] for s in steps), tuple(planned[s][1] for s in steps)), ""
