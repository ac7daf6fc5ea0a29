"""What the machine must offer: root, a few programs, a cgroup version. What is missing is installed or named.

On Debian and its children, as root, missing packages are installed by apt-get. Anywhere else every missing thing gets
one sentence with its remedy, all at once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .commands import run
from .kept import locked
from .layout import cache_folder
from .progress import say, step

__all__ = [
    "MachineError",
    "cgroup_v2",
    "cni_folder",
    "install",
    "output_of",
    "prepare",
    "program",
    "require_root",
    "warn_of_kernel",
]


_NEEDED: Final = {  # what to look for (a program, or a file) -> Debian's package
    "gcc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/include/seccomp.h": "libseccomp-dev",
    "pkg-config": "pkg-config",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "nft": "nftables",
    "openssl": "openssl",
    "runc": "runc",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
_CNI_FOLDERS: Final = ("/usr/lib/cni", "/opt/cni/bin")
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_GO_AT_LEAST: Final = (1, 21)  # older ones can't fetch the toolchain that a go.mod asks for


class MachineError(RuntimeError):
    """The machine lacks something; the message says what, and what to do."""


def program(name: str) -> str | None:
    """The path of a program, also where PATH has no sbin."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def cni_folder() -> str | None:
    """Where the CNI plugins are (bridge, host-local, portmap, loopback)."""
    return next((folder for folder in _CNI_FOLDERS if Path(folder, "bridge").exists()), None)


def cgroup_v2() -> bool:
    """Whether the machine has the unified hierarchy only."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def _present(thing: str) -> bool:
    if thing == "busybox":  # alone in an image: a dynamic one would find no library there
        path = program(thing)
        return path is not None and b"/ld-linux" not in Path(path).read_bytes()
    return Path(thing).exists() if thing.startswith("/") else program(thing) is not None


def _missing_packages() -> list[str]:
    packages = [package for thing, package in _NEEDED.items() if not _present(thing)]
    return packages if cni_folder() else [*packages, "containernetworking-plugins"]


def _go_trouble() -> str | None:
    remedy = "install Go from https://go.dev/dl and put its bin folder on the PATH."
    if not shutil.which("go"):
        return f"Go is missing: {remedy}"
    version = run(["go", "env", "GOVERSION"], cwd=Path("/")).strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _GO_AT_LEAST:
        return f"Go {version} is too old, {'.'.join(map(str, _GO_AT_LEAST))} is needed: {remedy}"
    return None


def install(packages: Iterable[str]) -> None:
    """Install Debian packages, without what they only recommend."""
    names = list(packages)
    with locked(cache_folder() / ".apt.lock"), step(f"Debian packages {' '.join(names)}", 40):
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], env=environment)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names], env=environment)


def require_root() -> None:
    """Raise unless we are root."""
    if os.geteuid():
        raise MachineError("Network, mount and cgroup changes need root: run it again as root (sudo -E make ...).")


def prepare() -> None:
    """Make the machine fit for the cluster.

    Raises:
        MachineError: It lacks something; the message names all of it.
    """
    troubles = []
    if os.uname().machine != "x86_64":
        troubles.append(f"The machine is {os.uname().machine}; the images are made for x86_64: use such a machine.")
    if os.geteuid():
        troubles.append("Not root: run it again as root (sudo -E make ...).")
    if trouble := _go_trouble():
        troubles.append(trouble)
    packages = _missing_packages()
    if packages and not (os.geteuid() == 0 and shutil.which("apt-get")):
        troubles += [
            f"The Debian package {package} (or what your distribution calls it) is missing: install it."
            for package in packages
        ]
    elif packages and not troubles:
        install(packages)
        if left := _missing_packages():
            troubles.append(f"apt-get installed {' '.join(left)}, yet it isn't found: check the PATH.")
    if troubles:
        raise MachineError("\n".join(troubles))


def output_of(argv: list[str]) -> str:
    """All that a program prints, whatever its status; empty if it doesn't run (for version questions)."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def warn_of_kernel() -> None:
    """Say what this kernel lacks that the project uses."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < (6, 5):
        say(f"Linux {release} has no SO_PEERPIDFD (6.5 or newer has): agents here can't tell who is at their socket.")
