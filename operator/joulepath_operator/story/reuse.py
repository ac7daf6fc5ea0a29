"""Which measurements a run starts from: its own, or those that an earlier run of the same shape has left.

Those of an earlier run are never taken at their word: `sweeping` measures a few of their clocks again first, and what
comes of that is this run's own profile, which says where its points are from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from joulepath_crds import EnergyProfileSpec, Origin, Reuse
from joulepath_operator.facts.observation import StoredProfile
from joulepath_operator.figures.agreement import agreement, check_clocks, merged, unusable
from joulepath_operator.figures.clocks import KNOWN
from joulepath_operator.story.case import ReadyCase

__all__ = ["Settled", "begin_check", "borrowed_profile", "in_words", "own_profile", "refused", "settle", "tell"]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an earlier profile, and the profile of that and of what was measured since. is_enough: whether
    nothing more needs to be measured."""

    origin: Origin | None
    profile: EnergyProfileSpec
    is_enough: bool = False


def own_profile(case: ReadyCase) -> StoredProfile | None:
    """The profile measured in this run."""
    return next(
        (one for one in case.seen.profiles if one.job_uid == case.job.uid and one.spec.topology == case.topology), None
    )


def begin_check(case: ReadyCase) -> tuple[Origin | None, tuple[int, ...]]:
    """The profile of an earlier run to begin with, and the blocks that check it; none where there is none, or where it
    is refused at once."""
    if (found := _earlier(case)) is None:
        return None, ()
    profile, why = found
    clocks = check_clocks(profile.spec, case.gang.supported_clocks_mhz(), case.lowest_mhz)
    if why is None and not clocks:
        why = "it has too few clocks of these GPUs to be checked, at least four are needed"
    if why is not None:
        return refused(profile.name, why), ()
    high, low = clocks
    # Four blocks at default clocks tell how much iterations vary; a profile that does needn't be told.
    return Origin(profile=profile.name, reuse=Reuse.CHECKED), (
        (0, high, low, 0) if profile.spec.iteration_time_noise_s else (0, high, 0, 0, low, 0)
    )


def settle(case: ReadyCase, origin: Origin | None, now: EnergyProfileSpec) -> Settled:
    """What comes of an earlier profile by all that was measured since."""
    if origin is None or origin.reuse is not Reuse.CHECKED:
        return Settled(origin, now)
    old = next((one.spec for one in case.seen.profiles if one.name == origin.profile), None)
    if old is None:
        return Settled(refused(origin.profile, "it was deleted while it was checked"), now)
    if why := unusable(old, case.gang, case.topology):
        return Settled(refused(origin.profile, why), now)
    found = agreement(old, now)
    if found.reuse is Reuse.REFUSED:
        return Settled(refused(origin.profile, found.message), now)
    spec = merged(old, now, found, case.lowest_mhz)
    clocks = max(len(kind.points) for stage in spec.stages for kind in stage.kinds)
    # An earlier run may have ended at as many clocks as it was allowed, without the percent.
    enough = _is_known(old) or clocks >= case.seen.spec.profiling.clocks
    told = Origin(profile=origin.profile, reuse=found.reuse, message=found.message)
    return Settled(told, spec, found.sure and enough)


def _is_known(profile: EnergyProfileSpec) -> bool:
    return profile.frontier_uncertainty is not None and profile.frontier_uncertainty <= KNOWN


def refused(profile: str, why: str) -> Origin:
    """A profile that isn't used."""
    return Origin(profile=profile, reuse=Reuse.REFUSED, message=why)


def borrowed_profile(case: ReadyCase) -> StoredProfile | None:
    """An earlier one as it is, for whoever may change no clock and so can't check it."""
    found = _earlier(case)
    if found is None or found[1] is not None:
        return None
    return replace(found[0], spec=found[0].spec.model_copy(update={"topology": case.topology}))


def tell(case: ReadyCase, own: StoredProfile) -> None:
    """That the work is profiled, and by what."""
    origin, reason, message = own.spec.origin, "Measured", f"Measured in this run: EnergyProfile {own.name}."
    if origin is not None and origin.reuse is not Reuse.REFUSED:
        reason, message = origin.reuse.value, f"EnergyProfile {own.name}."
    case.story.tell("Profiled", True, reason, f"{message} {in_words(origin)}".strip())


def in_words(origin: Origin | None) -> str:
    """What became of an earlier profile, as a sentence; empty where there was none."""
    if origin is None:
        return ""
    what = {
        Reuse.CHECKED: "is checked before it is used again",
        Reuse.REUSED: "is used again",
        Reuse.REFRESHED: "is used again, refreshed",
        Reuse.REFUSED: "isn't used",
    }[origin.reuse]
    why = f": {origin.message}" if origin.message else ""
    return f"EnergyProfile {origin.profile}, of an earlier run, {what}{why}."


def _earlier(case: ReadyCase) -> tuple[StoredProfile, str | None] | None:
    """The best of an earlier run, of a job of this name if there is one, and why it can't be used, if it can't."""
    if not case.seen.spec.profiling.reuse:
        return None
    found = [(one, unusable(one.spec, case.gang, case.topology)) for one in case.seen.profiles if _is_alike(case, one)]
    return min(
        found,
        key=lambda each: (
            each[1] is not None,
            each[0].spec.job != case.job.name,
            each[0].spec.topology != case.topology,
            each[0].name,
        ),
        default=None,
    )


def _is_alike(case: ReadyCase, profile: StoredProfile) -> bool:
    """Whether it is of the same pipeline, on whatever GPUs, in any number of replicas."""
    free = {"data_parallel", "gpu_model", "default_clock_mhz"}
    return profile.spec.topology.model_dump(exclude=free) == case.topology.model_dump(exclude=free)
