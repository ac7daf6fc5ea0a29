"""What the cluster's EnergyPolicy leaves of a plan, on this node: all, the same with less slowdown, or nothing. Pure.

A plan that has a clock below the least one isn't played at other clocks than its own: its times and its hash would tell
of what never ran. The operator makes another one, without such clocks.
"""

from __future__ import annotations

from dataclasses import replace

from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import POLICY_NAME, EnergyPolicySpec
from joulepath_rules import Plan

__all__ = ["under"]


def under(policy: EnergyPolicySpec, namespace: str, gpu_model: str, plan: Plan) -> Plan | Reason:
    """The plan of a rank in this namespace, on such a GPU (empty: unknown), as it may be played; or why it may not."""
    if policy.paused:
        return Reason(Obstacle.PAUSED, policy.why_paused)
    allowed = policy.namespaces
    # Where labels count as well, names alone don't tell who is barred: that is the operator's to know.
    if allowed is not None and not allowed.match_labels and not allowed.allow(namespace, {}):
        what = f"EnergyPolicy {POLICY_NAME} doesn't name namespace {namespace} in spec.namespaces"
        return Reason(Obstacle.NOT_ALLOWED, what)
    least_mhz = policy.least_clock_mhz(gpu_model)
    if (lowest_mhz := _lowest_mhz(plan)) and lowest_mhz < least_mhz:
        what = f"the plan has {lowest_mhz} MHz, EnergyPolicy {POLICY_NAME} allows {least_mhz} or more (spec.minClocks)"
        return Reason(Obstacle.BELOW_MIN_CLOCK, what)
    if policy.max_slowdown_percent is None:
        return plan
    return replace(plan, allowed_slowdown=min(plan.asked_slowdown, policy.max_slowdown_percent / 100))


def _lowest_mhz(plan: Plan) -> int:
    """The lowest clock that it locks, 0 if none."""
    clocks_mhz = {clock for stage in plan.stages for clock in stage.clocks_mhz}
    if plan.sweep is not None:
        clocks_mhz.update(plan.sweep.clocks_mhz, plan.sweep.to_and_fro_mhz)
    return min(clocks_mhz - {0}, default=0)
