"""What a GPU's seconds and watts at each clock most likely are, by points that are few, noisy and sometimes wrong.

A curve is level + slope x feature of the clock, by a *family* of features. Time: the clock's period, of which a power
cap lets no more than a plateau count, so that time = max(a + b/f, plateau), its corner sharp or rounded; where a cap
holds, a higher clock may even be a little slower. Power: a power of the clock, up to the cap. Every member of a family
is fitted, and weighted by how well it explains the points; nothing is chosen, so that what the points leave open shows
as uncertainty.

Points are right, with a normal error, or (one of fifteen) wrong by more: each weighs as much as it is likely to be
right. Stages that run the same kind share its shape: how far they differ is estimated as in a meta-analysis (random
effects, DerSimonian and Laird 1986), and a stage leans on the others as far as its own points say little. A power cap
shows in watts sooner than in seconds, so what watts tell of it counts when curves of seconds are weighted. What a curve
leaves at neighbouring clocks alike is the GPU's and is kept (kriging); the rest is noise. What disturbs a measurement
makes it last longer: where errors are given, clocks side by side that are much sooner than a curve are kept too, as a
step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask
from joulepath_planner.errors import ProfileError

__all__ = ["DRAWS", "POWER", "TIME", "Family", "Likely", "Series", "likely"]

DRAWS: Final = 64
"""In so many ways what the points leave open is drawn: enough for a standard deviation to within a tenth."""
_CAPS: Final = np.arange(0.99, 0.74, -0.01)
_CORNERS: Final = (8.0, 25.0, 1000.0)
_SLOWER: Final = (0.0, 0.3, 0.6)
_EXPONENTS: Final = (1.0, 1.5, 2.0, 3.0, 4.5, 6.5)
_NO_CAP: Final = 1 / 3
"""How likely no cap holds, before anything is measured."""
_OWN_SHAPE: Final = 0.1
"""How likely a stage's cap, corner or exponent is not that of the others."""

_WRONG: Final = 1 / 15
"""The share of points that something disturbed."""
_WRONG_BY: Final = 0.05
_LUCK: Final = 6.0
"""Standard errors by which luck alone makes a value too small."""
_STEP: Final = 0.01
"""So much below a curve, and more than luck makes it, a value is a step of the GPU's."""
_NOISE: Final = 0.01
"""Relative noise of a point where nothing tells it, worth as much as three points that do."""
_NOISE_WORTH: Final = 3
_KNOWN_WORTH: Final = 10
"""Standard errors that are given are worth more: they come of many samples."""
_LEAST_NOISE: Final = 1e-4
_SLOPE: Final = 0.7, 0.3
"""The share of a value that follows the clock, and its standard deviation, where nothing is known."""
_STAGES_DIFFER: Final = 0.03
"""Standard deviation of that share among stages where the data don't tell, worth two stages."""
_REACH: Final = 0.08
"""How far in clock, as a fraction, what a curve leaves stays alike."""
_NEGLIGIBLE: Final = 1e-6
"""A member of less weight in every stage is looked at no more."""
_MORE: Final = 1.3
"""Standard errors of a curve's level and slope come out too small by so much (40 drawn profiles): what is uncertain of
the noise, of the weights and of what stages share is not in them."""
_ROUNDS: Final = 5
_ROUNDS_OF_NOISE: Final = 3


@dataclass(frozen=True, slots=True)
class Series:
    """Measured values by clock (a fraction of the highest one of all stages), with relative standard errors.

    no_luck: whether a value far below the curve is right: what disturbs a measurement makes it larger.
    """

    at: Floats
    values: Floats
    errors: Floats
    no_luck: bool = False


@dataclass(frozen=True, slots=True)
class Likely:
    """values: at the wanted clocks; errors: their relative standard errors; draws: a row for each way that the truth
    may be. at: the places of the measured clocks among the wanted ones; curve: the values there, without what is kept
    of the residuals; wrong: how likely each measured point is wrong. caps: how much likelier each cap is by these
    points alone, no cap first."""

    values: Floats
    errors: Floats
    draws: Floats
    at: Ints
    curve: Floats
    wrong: Floats
    caps: Floats

    def times(self, scale: float) -> Likely:
        return replace(self, values=scale * self.values, draws=scale * self.draws, curve=scale * self.curve)


@dataclass(frozen=True, slots=True)
class Family:
    """features: clocks, as fractions of the highest one, to a row for each member; of these the first `capless` know
    no cap."""

    features: Callable[[Floats], Floats]
    capless: int

    def prior(self, members: int) -> Floats:
        weights = np.full(members, (1 - _NO_CAP) / (members - self.capless))
        weights[: self.capless] = _NO_CAP / self.capless
        return weights

    def caps(self, members: int) -> Ints:
        """Which cap each member has, 0 for none."""
        of_cap = (members - self.capless) // len(_CAPS)
        return np.concatenate([np.zeros(self.capless, dtype=np.intp), np.repeat(np.arange(1, len(_CAPS) + 1), of_cap)])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The clocks asked for and their features; seed: of the draws."""

    at: Floats
    features: Floats
    seed: int


@dataclass(frozen=True, slots=True)
class _Curves:
    """Each member of a family fitted to one series: level and slope, their covariance, how well it explains the points
    (logarithm), and the points' relative residuals and how likely each point is right."""

    level: Floats
    slope: Floats
    covariance: Floats
    evidence: Floats
    left: Floats
    right: Floats

    def kept(self, members: Mask) -> _Curves:
        return _Curves(*(getattr(self, field.name)[members] for field in fields(self)))

    def share(self) -> tuple[Floats, Floats]:
        """(the share of a value at the highest clock that follows the clock, its variance), without a cap."""
        whole = self.level + self.slope
        by = np.stack([-self.slope, self.level], axis=1) / (whole**2)[:, None]
        return self.slope / whole, np.einsum("ci,cij,cj->c", by, self.covariance, by) + _LEAST_NOISE**2


def _periods(at: Floats) -> Floats:
    rows = [1 / at]
    for cap in _CAPS:
        for slower in _SLOWER:
            plateau = (1 + slower * np.maximum(0, at / cap - 1)) / cap
            rows += [
                np.exp(np.logaddexp(-corner * np.log(at), corner * np.log(plateau)) / corner) for corner in _CORNERS
            ]
    return np.array(rows)


def _powers(at: Floats) -> Floats:
    return np.array([np.minimum(at, cap) ** exponent for cap in (1.0, *_CAPS) for exponent in _EXPONENTS])


TIME: Final = Family(_periods, 1)
POWER: Final = Family(_powers, len(_EXPONENTS))


def likely(
    stages: Mapping[int, Series],
    wanted: Mapping[int, Floats],
    family: Family,
    seed: int,
    caps: Mapping[int, Floats] | None = None,
) -> dict[int, Likely]:
    """What the values of one kind most likely are.

    stages: by stage, what was measured. wanted: the clocks asked for, the measured ones among them, in falling order.
    seed: of the draws. caps: what other values of the same stages tell of their cap (`Likely.caps`).

    Raises:
        ProfileError: The values are so far apart that no curve goes through them.
    """
    scales = {stage: float(np.exp(np.log(one.values).mean())) for stage, one in stages.items()}
    known_errors = [error for error in _joined({stage: one.errors for stage, one in stages.items()}) if error]
    usual = float(np.sqrt(np.mean(np.square(known_errors)))) if known_errors else 0.0
    scaled = {
        stage: replace(one, values=one.values / scales[stage], errors=np.where(one.errors > 0, one.errors, usual))
        for stage, one in stages.items()
    }
    features = {stage: family.features(one.at) for stage, one in stages.items()}
    members = np.arange(len(next(iter(features.values()))))
    prior, cap = family.prior(len(members)), family.caps(len(members))
    by_others = caps or {stage: np.ones(len(_CAPS) + 1) for stage in stages}
    told = {stage: np.log((1 - _OWN_SHAPE) * ones[cap] + _OWN_SHAPE) for stage, ones in by_others.items()}
    known = float(np.mean(_joined({stage: one.errors**2 for stage, one in scaled.items()})))
    expected, worth = (known, _KNOWN_WORTH) if known else (_NOISE**2, _NOISE_WORTH)
    noise = expected
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            for _ in range(_ROUNDS_OF_NOISE):
                # Errors that are given may be too small for what the curves leave; 0 says that none is known.
                excess = max(noise - known, _LEAST_NOISE**2)
                variances = {stage: one.errors**2 + excess for stage, one in scaled.items()}
                curves = _pooled(scaled, {stage: one[members] for stage, one in features.items()}, variances)
                curves = {s: replace(one, evidence=one.evidence + told[s][members]) for s, one in curves.items()}
                weights = _weights(curves, prior[members])
                counts = np.max(list(weights.values()), axis=0) > _NEGLIGIBLE
                members = members[counts]
                curves = {stage: one.kept(counts) for stage, one in curves.items()}
                weights = {stage: one[counts] / one[counts].sum() for stage, one in weights.items()}
                left = {stage: weights[stage] @ one.left for stage, one in curves.items()}
                right = {stage: weights[stage] @ one.right for stage, one in curves.items()}
                noise = _noise(_joined(left), _joined(right), 2 * len(stages) + 1, expected, worth)
            alike = _alike(scaled, left, noise, known) * noise
            return {
                stage: _completed(
                    one,
                    curves[stage],
                    weights[stage],
                    variances[stage],
                    alike,
                    _Wanted(wanted[stage], family.features(wanted[stage])[members], seed),
                    stage,
                    _caps(curves[stage].evidence, prior, cap, members),
                ).times(scales[stage])
                for stage, one in scaled.items()
            }
    except (FloatingPointError, np.linalg.LinAlgError):
        values = _joined({stage: one.values for stage, one in stages.items()})
        raise ProfileError(
            f"no curve goes through values from {values.min():g} to {values.max():g}: are all of them in seconds "
            "and joules?"
        ) from None


def _pooled(
    stages: Mapping[int, Series], features: Mapping[int, Floats], variances: Mapping[int, Floats]
) -> dict[int, _Curves]:
    """Every member fitted to every stage, the share that follows the clock drawn to that of all stages."""
    members = len(next(iter(features.values())))
    mean, spread = np.full(members, _SLOPE[0]), np.full(members, _SLOPE[1])
    alone = {s: _fitted(one, features[s], variances[s], mean, spread) for s, one in stages.items()}
    if len(stages) == 1:
        return alone
    shares, share_variances = (np.array(part) for part in zip(*(one.share() for one in alone.values()), strict=True))
    weights = 1 / share_variances
    mean = (weights * shares).sum(axis=0) / weights.sum(axis=0)
    freedom = len(stages) - 1
    excess = (weights * (shares - mean) ** 2).sum(axis=0) - freedom
    apart = np.maximum(0, excess / (weights.sum(axis=0) - (weights**2).sum(axis=0) / weights.sum(axis=0)))
    apart = (freedom * apart + 2 * _STAGES_DIFFER**2) / (freedom + 2)
    weights = 1 / (share_variances + apart)
    mean = (weights * shares).sum(axis=0) / weights.sum(axis=0)
    spread = np.sqrt(apart + 1 / weights.sum(axis=0))
    return {s: _fitted(one, features[s], variances[s], mean, spread) for s, one in stages.items()}


def _fitted(series: Series, features: Floats, variance: Floats, share: Floats, spread: Floats) -> _Curves:
    """Weighted least squares of every member, with the share as one more observation; weights by `_right`, in rounds.

    Neither level nor slope falls below 0: work takes time at any clock, and no less at a lower one.
    """
    values = series.values
    weights, whole = np.ones_like(features), np.ones(len(features))
    for _ in range(_ROUNDS):
        of = weights / (variance * values**2)
        pull = 1 / (spread * whole) ** 2
        aa = of.sum(axis=1) + pull * share**2
        ab = (of * features).sum(axis=1) - pull * share * (1 - share)
        bb = (of * features**2).sum(axis=1) + pull * (1 - share) ** 2
        a, b = of @ values, (of * features) @ values
        determinant = aa * bb - ab**2
        level, slope = (bb * a - ab * b) / determinant, (aa * b - ab * a) / determinant
        level = np.where(slope < 0, a / of.sum(axis=1), level)
        slope = np.where(level < 0, b / (of * features**2).sum(axis=1), np.maximum(slope, 0))
        level = np.maximum(level, 0)
        left = values / (level[:, None] + slope[:, None] * features) - 1
        right, explained = _right(left, variance)
        weights = right + (1 - right) * variance / (variance + _WRONG_BY**2)
        whole = level + slope
    covariance = np.array([[bb, -ab], [-ab, aa]]).transpose(2, 0, 1) / determinant[:, None, None]
    off = (slope / whole - share) / spread
    # Laplace's method; the share has its prior, and the whole none, so that any unit gives the same.
    evidence = explained.sum(axis=1) - off**2 / 2 - np.log(spread) - np.log(determinant * whole**4) / 2
    return _Curves(level, slope, covariance, evidence, left, right)


def _right(left: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """(how likely a point with this residual is right, how well either explains it: the logarithm)."""
    wide = variance + _WRONG_BY**2
    right = np.log((1 - _WRONG) / np.sqrt(variance)) - left**2 / variance / 2
    either = np.logaddexp(right, np.log(_WRONG / np.sqrt(wide)) - left**2 / wide / 2)
    return np.exp(right - either), either


def _weights(curves: Mapping[int, _Curves], prior: Floats) -> dict[int, Floats]:
    """How likely each member is, for each stage: by its own points, and by those of the others."""
    total = np.sum([one.evidence for one in curves.values()], axis=0)
    found = {}
    for stage, one in curves.items():
        shared = _normal(np.log(prior) + total - one.evidence)
        found[stage] = _normal(np.log((1 - _OWN_SHAPE) * shared + _OWN_SHAPE * prior) + one.evidence)
    return found


def _caps(evidence: Floats, prior: Floats, cap: Ints, members: Ints) -> Floats:
    """How much more likely each cap is by this evidence of some members; 0 where none of a cap's is left."""
    found = np.bincount(cap[members], _normal(np.log(prior[members]) + evidence), minlength=len(_CAPS) + 1)
    more: Floats = found / np.bincount(cap, prior)
    return more


def _normal(logarithms: Floats) -> Floats:
    weights: Floats = np.exp(np.maximum(logarithms - logarithms.max(), -700))
    weights /= weights.sum()
    return weights


def _joined(parts: Mapping[int, Floats]) -> Floats:
    return np.concatenate(list(parts.values()))


def _noise(left: Floats, right: Floats, terms: int, expected: float, worth: int) -> float:
    """The variance of what the curves leave where points are right."""
    free = max(0, len(left) - terms)
    found = float(right @ left**2 / right.sum()) * len(left) / max(1, free)
    return (worth * expected + free * found) / (worth + free)


def _alike(stages: Mapping[int, Series], left: Mapping[int, Floats], noise: float, known: float) -> float:
    """The share of what the curves leave that is the GPU's: what known errors don't explain, or what neighbouring
    clocks or the stages have in common."""
    most = 2.5 * np.sqrt(noise)
    clipped = {stage: np.clip(one, -most, most) for stage, one in left.items()}
    whole = max(float(np.mean(_joined(clipped) ** 2)), _LEAST_NOISE**2)
    near = float(np.mean(np.concatenate([np.exp(np.diff(np.log(one.at)) / _REACH) for one in stages.values()])))
    neighbours = np.concatenate([one[1:] * one[:-1] for one in clipped.values()]) / near
    clocks = np.unique(np.concatenate([one.at for one in stages.values()]))
    of_clock = np.searchsorted(clocks, np.concatenate([one.at for one in stages.values()]))
    together = _joined(clipped)
    count, total, squares = (np.bincount(of_clock, by) for by in (None, together, together**2))
    # Products of all pairs at a clock: the square of their sum has each twice.
    pairs, products = float(count @ (count - 1)) / 2, float((total**2 - squares).sum()) / 2
    shares = [max(0.0, 1 - known / noise) if known else 0.0]
    for number, found in ((len(neighbours), float(neighbours.sum())), (pairs, products)):
        # Less than so much in common is chance.
        if number and (share := found / number / whole) > 2 / np.sqrt(number):
            shares.append(share)
    return min(1.0, max(shares))


def _completed(
    series: Series,
    curves: _Curves,
    weights: Floats,
    noise: Floats,
    alike: float,
    wanted: _Wanted,
    stage: int,
    caps: Floats,
) -> Likely:
    """noise: the variance of each point; alike: that of what neighbouring clocks share and no member tells."""
    of_all = curves.level[:, None] + curves.slope[:, None] * wanted.features
    mean = weights @ of_all
    at = np.array([int(np.argmin(np.abs(wanted.at - clock))) for clock in series.at], dtype=np.intp)
    bend = _bend(series, series.values / mean[at] - 1, noise, alike, wanted.at)
    ones = np.stack([np.ones_like(wanted.features), wanted.features], axis=2)
    within = np.einsum("c,cij,cni,cnj->n", weights, curves.covariance, ones, ones)
    errors = np.sqrt((within * _MORE**2 + weights @ (of_all - mean) ** 2) / mean**2 + bend.variance)
    # Caps, corners and shares are drawn alike for all stages of a kind, as what is wrong of one is wrong of all; levels
    # and bends apart.
    common, apart = np.random.default_rng(wanted.seed), np.random.default_rng((wanted.seed, stage))
    member = np.searchsorted(np.cumsum(weights), common.random(DRAWS) * (1 - 1e-9))
    root = _MORE * np.linalg.cholesky(curves.covariance[member][:, ::-1, ::-1])
    slope, level = np.einsum("dij,jd->id", root, [common.standard_normal(DRAWS), apart.standard_normal(DRAWS)])
    drawn = np.maximum(of_all[member] + level[:, None] + slope[:, None] * wanted.features[member], mean / 2)
    bends = np.maximum(1 + bend.draws(wanted.at, at, apart), 1 / 2)
    return Likely(mean * (1 + bend.most_likely), errors, drawn * bends, at, mean[at], 1 - bend.right, caps)


@dataclass(frozen=True, slots=True)
class _Bend:
    """What is kept of relative residuals at the wanted clocks, its variance there, and how likely each point is right.

    gain: from residuals of the measured clocks to the wanted ones; alike: the variance before anything was measured;
    alone: of the noise of each point.
    """

    most_likely: Floats
    variance: Floats
    right: Floats
    gain: Floats
    alike: float
    alone: Floats

    def draws(self, wanted: Floats, at: Ints, source: np.random.Generator) -> Floats:
        """A row for each way that it may be: what is drawn before measuring, corrected by what points of it would tell
        (Matheron's rule). Before measuring, it wanders from clock to clock and forgets (Ornstein-Uhlenbeck)."""
        steps = source.standard_normal((len(wanted), DRAWS))
        keeps = np.exp(np.diff(np.log(wanted)) / _REACH)
        drawn = np.empty_like(steps)
        drawn[0] = steps[0]
        for place, keep in enumerate(keeps, 1):
            drawn[place] = keep * drawn[place - 1] + np.sqrt(1 - keep**2) * steps[place]
        drawn *= np.sqrt(self.alike)
        seen = drawn[at] + np.sqrt(self.alone)[:, None] * source.standard_normal((len(at), DRAWS))
        found: Floats = self.most_likely + (drawn - self.gain @ seen).T
        return found


def _bend(series: Series, left: Floats, noise: Floats, alike: float, wanted: Floats) -> _Bend:
    alone = np.maximum(noise - alike, _LEAST_NOISE**2)
    least = np.maximum(_STEP, _LUCK * np.sqrt(noise))
    # One alone may be disturbed; where there are steps, all that the curve leaves may be as large.
    below, beside = left < -least, np.concatenate([[False], left < -least / 2, [False]])
    steps = series.no_luck & below & (beside[2:] | beside[:-2])
    if steps.any():
        alike = max(alike, float(np.mean(left[steps] ** 2)))

    def together(one: Floats, other: Floats) -> Floats:
        found: Floats = alike * np.exp(-np.abs(np.log(one)[:, None] - np.log(other)) / _REACH)
        return found

    right = np.ones(len(left))
    for _ in range(_ROUNDS):
        wide = (1 - right) * _WRONG_BY**2
        inverse = np.linalg.inv(together(series.at, series.at) + np.diag(alone + wide))
        # What the others say of each point (leave one out), and how sure they are.
        own = np.diag(inverse)
        right, _ = _right(inverse @ left / own, 1 / own - wide)
        right = np.where(steps, 1.0, right)
    gain = together(wanted, series.at) @ inverse
    variance = np.maximum(alike - (gain * together(wanted, series.at)).sum(axis=1), 0)
    return _Bend(gain @ left, variance, right, gain, alike, alone + wide)
