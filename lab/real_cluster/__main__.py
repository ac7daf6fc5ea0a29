"""The command line of the cluster: build, up, down, env, load."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from . import images, machine
from .binaries import binaries, operator_manifests, program
from .cluster import down, running, up
from .commands import CommandError
from .gpus import gpu_daemons
from .machine import MachineError
from .progress import say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m real_cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="bring the cluster up, or mend it; takes seconds if it runs")
    start.add_argument("--nodes", type=int, default=2, help="number of nodes (default 2)")
    start.add_argument("--gpus", type=int, default=4, help="virtual GPUs of each node (default 4; 0: none)")
    commands.add_parser("build", help="build what is missing (about 20 minutes the first time)")
    one = commands.add_parser("program", help="path of one of the cluster's programs, built if it is missing")
    one.add_argument("name", help="such as helm or kubectl")
    commands.add_parser("down", help="remove the cluster; what was built is kept")
    commands.add_parser("env", help='for eval "$(...)": KUBECONFIG and PATH of the running cluster')
    load = commands.add_parser("load", help="import an image into all nodes")
    load.add_argument("archive", type=Path, help="a docker-archive (buildah push IMAGE docker-archive:FILE)")
    return parser


def _build() -> None:
    machine.prepare()
    images.own_images(binaries())
    operator_manifests()
    images.base()


def main() -> int:
    """Run one command; 2 if the machine lacks something."""
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "up":
                machine.warn_of_kernel()
                cluster = up(arguments.nodes, gpu_daemons(arguments.gpus))
                say(f"{len(cluster.nodes)} nodes run. KUBECONFIG={cluster.kubeconfig}")
            case "build":
                _build()
            case "down":
                down()
            case "env":
                cluster = running()
                print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
                print(f"export PATH={shlex.quote(str(cluster.processes.path))}:$PATH")
            case "program":
                print(program(arguments.name))
            case "load":
                running().load(arguments.archive)
    except MachineError as error:
        print(error, file=sys.stderr)
        return 2
    except (CommandError, TimeoutError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
