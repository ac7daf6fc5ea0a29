"""What is asked of `joulepath profile`, and where it is written."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Final

from joulepath_bridge.pipeline import profile_of
from joulepath_cli import quantities
from joulepath_cli.commands import files
from joulepath_cli.commands.profile import energyprofile, forms
from joulepath_crds import GROUP, EnergyProfileSpec
from joulepath_planner import ArgumentError, Profile, ProfileError
from joulepath_planner.arguments import quoted

__all__ = ["add_arguments", "run"]

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SCHEDULES: Final = {"1f1b": "1F1B", "gpipe": "GPipe", "recorded": "Recorded", "nopipeline": "NoPipeline"}
"""As jobs report them: `Recorded` is any that has no name of its own."""
_BEGINS: Final = {"csv": ",".join(forms.HEADER).encode(), "yaml": b"apiVersion: " + GROUP.encode()}
_NEEDED: Final = ("blocking_power", "microbatches", "gpu_model")
_OF_A_CSV: Final = (*_NEEDED, "schedule", "gpus_per_stage", "default_clock")


def add_arguments(parser: ArgumentParser) -> None:
    ways = parser.add_subparsers(required=True, metavar="export|import", dest="way")
    out = ways.add_parser("export", help="an EnergyProfile as Zeus's CSV, or as a manifest for another cluster")
    out.add_argument("profile", metavar="PROFILE", help="an EnergyProfile's YAML, or energyprofile/NS/NAME")
    out.add_argument("--format", choices=sorted(_BEGINS), default="csv", help="csv or yaml (csv)")
    into = ways.add_parser("import", help="an EnergyProfile to apply, of Zeus's CSV (Merak's, Kareus's) or of YAML")
    into.add_argument("profile", metavar="FILE", help="the CSV, or an EnergyProfile's YAML")
    group = into.add_argument_group("what a CSV doesn't tell")
    group.add_argument(
        "--blocking-power",
        type=quantities.blocking_power,
        metavar="W",
        help="watts of a GPU that waits for a peer, such as 83.64, or by clock: 1410=90,1005=70",
    )
    group.add_argument("--microbatches", type=quantities.count, metavar="N", help="microbatches of an iteration")
    group.add_argument("--gpu-model", metavar="NAME", help="as nvidia-smi -L tells it: NVIDIA A100-SXM4-80GB")
    group.add_argument(
        "--schedule",
        type=_schedule,
        metavar="NAME",
        help=f"as jobs report it: {', '.join(_SCHEDULES.values())} (1F1B)",
    )
    group.add_argument("--gpus-per-stage", type=quantities.count, metavar="N", help="tensor-parallel GPUs (1)")
    group.add_argument(
        "--default-clock",
        type=quantities.count,
        metavar="MHZ",
        help="the highest that the GPUs may run at (the highest of the file)",
    )
    for one in (out, into):
        one.add_argument("--name", type=_name, help="of the EnergyProfile (that of what is read)")
        one.add_argument("--namespace", type=_name, help="of the EnergyProfile (that of kubectl)")
        one.add_argument("-o", "--output", type=Path, metavar="FILE", help="where it is written (standard output)")


def run(options: Namespace) -> None:
    form = options.format if options.way == "export" else "yaml"
    if options.output is not None:
        files.check_outputs([options.output], _BEGINS[form])
    found = _imported(options) if options.way == "import" else energyprofile.load(options.profile)
    if form == "csv":
        text = forms.as_csv(found)
        _note(f"a CSV holds points alone, no errors, delays, lags and waits; {_waits(found)}")
    else:
        text = forms.as_manifest(found, options.name or _named(options.profile), options.namespace)
    if options.output is None:
        print(text, end="")
    else:
        files.write(options.output, text)


def _imported(options: Namespace) -> EnergyProfileSpec:
    """What is imported is checked as the planner would."""
    given = [one for one in _OF_A_CSV if getattr(options, one) is not None]
    if energyprofile.is_one(options.profile):
        if given:
            raise ArgumentError(f"{_option(given[0])} is for a CSV, an EnergyProfile has it; change it there.")
        spec = energyprofile.load(options.profile)
        profile_of(spec).check_units()
        return spec
    if missing := [one for one in _NEEDED if one not in given]:
        raise ArgumentError(f"{_option(missing[0])} is missing: a CSV doesn't tell it; see --help.")
    profile = Profile.from_csv(options.profile, blocking_power_w=options.blocking_power, tell=_note)
    topology = {
        "schedule": options.schedule or "1F1B",
        "microbatches": options.microbatches,
        "tensor_parallel": options.gpus_per_stage or 1,
        "gpu_model": options.gpu_model,
        "default_clock_mhz": options.default_clock or max(map(profile.default_clock_mhz, profile.stages)),
    }
    try:
        return forms.of_csv(profile, topology)
    except ProfileError as error:
        raise ProfileError(f"{options.profile}: {error}") from None


def _waits(spec: EnergyProfileSpec) -> str:
    watts = ",".join(f"{one.clock_mhz}={one.power_w:g}" for one in spec.blocking_power)
    return f"where it is read give --blocking-power {watts}" if watts else "the watts of waits aren't known"


def _named(source: str) -> str:
    """The name of what is read, as the API takes it."""
    stem = source.rpartition("/")[2].partition(".")[0].lower()
    return re.sub("[^a-z0-9]+", "-", stem).strip("-")[:253].strip("-") or "profile"


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ArgumentTypeError(f"{quoted(text)} is no name in Kubernetes; write up to 253 of a-z, 0-9, - and .")
    return text


def _schedule(text: str) -> str:
    if (name := _SCHEDULES.get(text.lower())) is None:
        told = ", ".join(_SCHEDULES.values())
        raise ArgumentTypeError(f"{quoted(text)} is no schedule that jobs report; give {told}.")
    return name


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _note(sentence: str) -> None:
    print(f"joulepath: note: {sentence.rstrip('.')}.", file=sys.stderr)
