"""Command line: `python -m virtual_gpus build | init | look | break` (see README.md)."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from virtual_gpus import build, model, state


def _init(arguments: argparse.Namespace) -> None:
    if arguments.model == "replay":
        if not arguments.profile:
            raise SystemExit("--model replay needs --profile CSV: the published stage profile to play back")
        gpu_model = model.replay(arguments.profile)
    else:
        gpu_model = model.parametric(json.loads(arguments.spec.read_text()) if arguments.spec else {})
    names = [f.name for f in dataclasses.fields(state.Options)]
    options = state.Options(**{name: getattr(arguments, name) for name in names})
    state.create(arguments.state, gpu_model, options)
    print("\n".join(state.uuids(arguments.state)))


def _look(arguments: argparse.Namespace) -> None:
    for gpu, name in enumerate(state.uuids(arguments.state)):
        print(json.dumps({"gpu": gpu, "uuid": name, **dataclasses.asdict(state.look(arguments.state, gpu))}))


def _break(arguments: argparse.Namespace) -> None:
    a = arguments
    state.break_gpu(a.state, a.gpu, lost=a.lost, set_error=a.set_error, hang=a.hang, slower=a.slower)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="virtual_gpus", description="Virtual GPUs behind NVML and CUDA.")
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("build", help="compile the libraries and print their directory")
    make.set_defaults(run=lambda _: print(build.library_dir()))
    init = commands.add_parser("init", help="lay the state file of a node")
    init.add_argument("--model", choices=["replay", "parametric"], default="parametric")
    init.add_argument("--profile", type=Path, help="CSV for --model replay")
    init.add_argument("--spec", type=Path, help="JSON for --model parametric (default: its defaults)")
    for option in dataclasses.fields(state.Options):
        flag, default = f"--{option.name.replace('_', '-')}", option.default
        if isinstance(default, bool):
            init.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        else:
            init.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    init.set_defaults(run=_init)
    seen = commands.add_parser("look", help="print the exact state of each GPU as JSON")
    seen.set_defaults(run=_look)
    harm = commands.add_parser(
        "break", help="lose a GPU, let clock calls fail or any hang, or slow it; without options: mend it"
    )
    harm.add_argument("--gpu", type=int, required=True)
    harm.add_argument("--lost", action="store_true")
    harm.add_argument("--set-error", type=int, default=0, help="NVML error code")
    harm.add_argument("--hang", nargs="*", choices=("set", "reset", "read"), default=(), help="calls that don't return")
    harm.add_argument("--slower", type=float, default=0.0, help="by heat, as a share: 0.2 takes 1.2 times as long")
    harm.set_defaults(run=_break)
    for command in (init, seen, harm):
        command.add_argument("--state", type=Path, default=state.DEFAULT_STATE)
    return parser


if __name__ == "__main__":
    chosen = _parser().parse_args()
    chosen.run(chosen)
