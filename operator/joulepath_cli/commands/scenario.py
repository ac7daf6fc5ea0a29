"""What is planned: a profile and the options of the command line, as a pipeline."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from joulepath_cli import quantities
from joulepath_planner import (
    FIXED,
    SCHEDULES,
    Fit,
    LagTable,
    Pipeline,
    Profile,
    ProfileError,
    Schedule,
    ScheduleError,
    fit,
    recorded,
    schedule_by_name,
)
from joulepath_planner.inputs.text import read_text

if TYPE_CHECKING:
    from joulepath_crds import EnergyProfileSpec

__all__ = ["Scenario", "add_arguments", "add_profile", "load"]

_WITHOUT_PIPELINE: Final = dict.fromkeys(("nopipeline", "varyingbackwards"), "1f1b")
"""Of one stage, 1F1B is a job without a pipeline."""
_MOST_ORDER_BYTES: Final = 2_000_000
_MANY_W: Final = 1500.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A pipeline and how fast its GPUs switch clocks (None: at once). fitted: where clocks were filled in."""

    pipeline: Pipeline
    lags: LagTable | None
    fitted: Fit | None = None

    @property
    def title(self) -> str:
        schedule, ranks = self.pipeline.schedule, self.pipeline.ranks
        shape = [
            _plural(schedule.stages, "stage"),
            _plural(ranks, "rank") if ranks != schedule.stages else "",
            _plural(schedule.microbatches, "microbatch", "es"),
            _plural(self.pipeline.gpu_count, "GPU"),
            f"lag {1e3 * self.lags.worst_p95_s:g} ms (p95)" if self.lags and self.lags.worst_p95_s else "",
            f"held up for {1e3 * self.lags.pause_s:.3g} ms by a switch" if self.lags and self.lags.pause_s else "",
        ]
        return f"{schedule.name}: {', '.join(filter(None, shape))}"


def add_profile(parser: ArgumentParser) -> None:
    """The profile, as `load` takes it."""
    parser.add_argument(
        "profile", metavar="PROFILE", help="Zeus's CSV, an EnergyProfile's YAML, or energyprofile/NS/NAME"
    )


def add_arguments(parser: ArgumentParser, *, several_schedules: bool = False) -> None:
    """The options that describe a pipeline."""
    group = parser.add_argument_group("the pipeline")
    group.add_argument(
        "--schedule",
        metavar="NAME",
        type=quantities.listed(str) if several_schedules else str,
        help=f"{', '.join(SCHEDULES)}; or a file with the order of each rank, one a line, such as 'F0 F1 B0 B1', with "
        "'>F1' where what F1 made leaves later (default: the profile's, else 1f1b)"
        + ("; several with commas" if several_schedules else ""),
    )
    group.add_argument(
        "--stages", type=quantities.count, metavar="N", help="stages of the model (default: all of the profile)"
    )
    group.add_argument("--microbatches", type=quantities.count, metavar="N", help="microbatches of an iteration")
    group.add_argument(
        "--chunks", type=quantities.count, metavar="N", help="stages of a rank in interleaved schedules (default: 2)"
    )
    group.add_argument(
        "--blocking-power",
        type=quantities.blocking_power,
        metavar="W",
        help="watts of a GPU that waits for a peer, such as 83.64, or by clock: 1410=90,1005=70 (a CSV needs it)",
    )
    group.add_argument("--gpus-per-stage", type=quantities.count, metavar="N", help="tensor-parallel GPUs of a stage")
    group.add_argument(
        "--tail-ms", type=quantities.milliseconds, metavar="MS", help="gradient reduction and optimizer of a stage"
    )
    group.add_argument(
        "--transfer-ms", type=quantities.milliseconds, metavar="MS", help="delay from a stage to the next"
    )
    group.add_argument(
        "--lag-ms",
        type=quantities.milliseconds,
        metavar="MS",
        help="how long a GPU takes to switch its clock (default: the profile's, else it switches at once)",
    )
    group.add_argument(
        "--switch-ms",
        type=quantities.milliseconds,
        metavar="MS",
        help="how long each switch holds up a GPU's work (default: what the profile's job found, else not at all)",
    )
    group.add_argument(
        "--input-share",
        type=quantities.fraction,
        metavar="SHARE",
        help="where the profile has no I and W, how much of B is I (50%%), for zero-bubble schedules",
    )
    group.add_argument(
        "--clock-step",
        type=quantities.count,
        metavar="MHZ",
        help="fill in the clocks that were not measured, at this distance (15 on A100) down from the highest",
    )


def load(source: str, options: Namespace, schedule: str | None = None) -> Scenario:
    """The pipeline of a profile. What is raised are sentences.

    schedule: the one to take where the options hold several.

    Raises:
        PlannerError: Profile and options make no pipeline.
        OSError: A file can't be read.
    """
    named = options.schedule if schedule is None else schedule
    # The contract's models take a while to import; a CSV has no use for them.
    if source.startswith("energyprofile/") or Path(source).suffix.lower() in (".yaml", ".yml"):
        return _of_energyprofile(source, options, named)
    return _of_csv(source, options, named)


def _of_energyprofile(source: str, options: Namespace, schedule: str | None) -> Scenario:
    """What the command line says goes before what the profile says."""
    from joulepath_bridge.lags import lags_of
    from joulepath_bridge.pipeline import profile_of, tails_of, transfers_of
    from joulepath_cli.commands.profile import energyprofile

    spec = energyprofile.load(source)
    topology = spec.topology
    if options.blocking_power is None and not spec.blocking_power:
        raise ProfileError(
            f"{source}: spec.blockingPower is empty, and waits would be counted at 0 W; give the watts of a GPU that "
            "waits for a peer, such as --blocking-power 83.64."
        )
    measured = profile_of(spec)
    if options.blocking_power is not None:
        measured = Profile(measured.points, options.blocking_power)
    measured.check_units()
    profile, fitted = _profile(measured, options)
    told = topology.schedule.lower()
    name = _WITHOUT_PIPELINE.get(told, told) if schedule is None else schedule
    if name == "recorded":
        raise ScheduleError("the profile's schedule was recorded, and not kept; give --schedule a name or a file.")
    stages = options.stages or topology.stages
    order = _schedule(name, stages, options.microbatches or topology.microbatches, options.chunks)
    _splittable(profile, order)
    _doubt(profile)
    pipeline = Pipeline(
        schedule=order,
        profile=profile,
        transfer_s=_transfers(order, options) if options.transfer_ms is not None else transfers_of(spec, order),
        tail_s=_tails(order, options) or tails_of(spec, order),
        gpus=_gpus(order, options.gpus_per_stage or topology.tensor_parallel),
    )
    known_lags = None if spec.lag is None else lags_of(spec.lag, spec.default_clock_mhz)
    lags = _lags(options) if options.lag_ms is not None else known_lags
    return Scenario(pipeline, _held_up(lags, _switch_s(spec, pipeline, options)), fitted)


def _switch_s(spec: EnergyProfileSpec, planned: Pipeline, options: Namespace) -> float:
    """For how long a switch holds up a GPU: what explains the cost that the profile's job saw, in its own schedule. A
    recorded one wasn't kept, and is taken to be the planned one."""
    from joulepath_bridge.pipeline import profile_of, tails_of, transfers_of
    from joulepath_bridge.switching import pause_of

    topology = spec.topology
    if options.switch_ms is not None or spec.switching is None or topology.stages == 1:
        return options.switch_ms or 0.0
    job, name = planned, topology.schedule.lower()
    if name in SCHEDULES:
        job = Pipeline(
            schedule_by_name(name, topology.stages, topology.microbatches),
            profile_of(spec),
            transfer_s=transfers_of(spec),
            tail_s=tails_of(spec),
        )
    pause = pause_of(spec.switching, job)
    return 0.0 if pause is None else pause.planned_s


def _of_csv(path: str, options: Namespace, schedule: str | None) -> Scenario:
    if options.blocking_power is None:
        raise ProfileError(
            "--blocking-power is missing: a CSV doesn't hold the watts of a GPU that waits for a peer; "
            "give them, such as --blocking-power 83.64."
        )
    left_out: list[str] = []
    measured = Profile.from_csv(path, blocking_power_w=options.blocking_power, tell=left_out.append)
    profile, fitted = _profile(measured, options)
    stages = options.stages or len(profile.stages)
    order = _schedule("1f1b" if schedule is None else schedule, stages, options.microbatches, options.chunks)
    _splittable(profile, order)
    _doubt(profile)
    pipeline = Pipeline(
        schedule=order,
        profile=profile,
        transfer_s=_transfers(order, options),
        tail_s=_tails(order, options),
        gpus=_gpus(order, options.gpus_per_stage or 1),
    )
    for sentence in left_out:
        _note(sentence)
    return Scenario(pipeline, _held_up(_lags(options), options.switch_ms or 0.0), fitted)


def _splittable(profile: Profile, schedule: Schedule) -> None:
    """Refuses a profile without I and W where these are wanted and there is a B to split.

    Raises:
        ProfileError: There is one.
    """
    for one in (one for order in schedule.orders for one in order):
        if one.kind in "IW" and (one.stage, one.kind) not in profile.points and (one.stage, "B") in profile.points:
            raise ProfileError(
                f"{schedule.name} runs input and weight gradients apart (I and W), and the profile has only whole "
                "backwards (B): measure them apart, or say which part is I, such as --input-share 50%."
            )


def _doubt(profile: Profile) -> None:
    """Says what is no error, and hardly true."""
    for (stage, kind), points in profile.points.items():
        watts, waiting = points[0].energy_j / points[0].time_s, profile.wait_power_w(points[0].clock_mhz)
        if (kind != FIXED and watts < waiting) or watts > _MANY_W:
            _note(
                f"stage {stage} {kind} draws {watts:.4g} W at {points[0].clock_mhz} MHz, a GPU that waits "
                f"{waiting:.4g} W; are these seconds, joules and watts of one GPU?"
            )
            return


def _note(sentence: str) -> None:
    print(f"joulepath: note: {sentence}", file=sys.stderr)


def _profile(measured: Profile, options: Namespace) -> tuple[Profile, Fit | None]:
    """The profile to plan on, and the fit that it is of where clocks were filled in."""
    if options.input_share is not None:
        measured = _split(measured, options.input_share)
    if options.clock_step is None:
        return measured, None
    clocks = {point.clock_mhz for points in measured.points.values() for point in points}
    fitted = fit(measured, clocks | set(range(max(clocks), min(clocks) - 1, -options.clock_step)))
    return fitted.profile, fitted


def _split(profile: Profile, share: float) -> Profile:
    """With I and W where there is a B only: that share of its seconds and joules, and the rest."""
    if not 0 < share < 1:
        raise ProfileError(f"--input-share is {share:g}; both I and W take a part of B, such as 50%.")
    parts = {
        (stage, part): tuple(
            replace(
                point,
                time_s=point.time_s * of,
                energy_j=point.energy_j * of,
                time_se_s=point.time_se_s * of,
                energy_se_j=point.energy_se_j * of,
            )
            for point in points
        )
        for (stage, kind), points in profile.points.items()
        for part, of in (("I", share), ("W", 1 - share))
        if kind == "B"
    }
    return replace(profile, points={**parts, **profile.points})


def _schedule(name: str, stages: int, microbatches: int | None, chunks: int | None) -> Schedule:
    if name.lower() in SCHEDULES:
        name = name.lower()
        if microbatches is None:
            raise ScheduleError("--microbatches is missing: say how many an iteration has, such as --microbatches 12.")
        return schedule_by_name(name, stages, microbatches, chunks)
    if Path(name).exists() and not Path(name).is_dir():
        lines = read_text(name, ScheduleError, _MOST_ORDER_BYTES).splitlines()
        order = recorded([line for line in lines if line.strip() and not line.lstrip().startswith("#")])
        for what, given, found in (
            ("stages", stages, order.stages),
            ("microbatches", microbatches, order.microbatches),
        ):
            if given not in (None, found):
                raise ScheduleError(
                    f"{name} orders {found} {what}, and the profile or the command line has {given}; make them the "
                    f"same, such as --{what} {found}."
                )
        return order
    raise ScheduleError(f"there is no file {name}, and no schedule of that name; it is one of {', '.join(SCHEDULES)}.")


def _transfers(schedule: Schedule, options: Namespace) -> dict[tuple[int, int, str], float]:
    if not options.transfer_ms:
        return {}
    neighbours = [(stage, stage + 1) for stage in range(schedule.stages - 1)]
    forward = {(near, far, "F"): options.transfer_ms for near, far in neighbours}
    return forward | {(far, near, kind): options.transfer_ms for near, far in neighbours for kind in "BI"}


def _tails(schedule: Schedule, options: Namespace) -> dict[int, float]:
    return dict.fromkeys(range(schedule.stages), options.tail_ms) if options.tail_ms is not None else {}


def _gpus(schedule: Schedule, each: int) -> dict[int, int]:
    return dict.fromkeys(range(schedule.stages), each) if each > 1 else {}


def _lags(options: Namespace) -> LagTable | None:
    return LagTable.constant(options.lag_ms) if options.lag_ms else None


def _held_up(lags: LagTable | None, switch_s: float) -> LagTable | None:
    return replace(lags or LagTable.constant(0.0), pause_s=switch_s) if switch_s else lags


def _plural(number: int, word: str, ending: str = "s") -> str:
    return f"{number} {word}{ending if number != 1 else ''}"
