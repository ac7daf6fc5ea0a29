"""A real Prometheus on 127.0.0.1: the one on the PATH, or Debian's package unpacked into the cache.

The package is not installed: that would start a system service.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .commands import run, until
from .kept import kept
from .layout import cache_folder, run_folder
from .machine import MachineError
from .processes import Processes
from .progress import step

__all__ = ["prometheus", "start_prometheus", "stop_prometheus"]


def _program() -> Path:
    if found := shutil.which("prometheus"):
        return Path(found)
    if not shutil.which("apt-get"):
        raise MachineError("Prometheus is missing: install it from https://prometheus.io/download, on the PATH.")

    def unpack(folder: Path) -> None:
        with step("Prometheus (Debian package)", 15):
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus"], cwd=folder)
            (package,) = folder.glob("prometheus_*.deb")
            run(["dpkg-deb", "--extract", package, folder])
            package.unlink()

    return kept(cache_folder() / "tools" / "prometheus-debian", unpack) / "usr" / "bin" / "prometheus"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
        return bool(answer.status == 200)


def start_prometheus(configuration: str) -> str:
    """Start a Prometheus with this configuration (YAML text); its URL, once it is ready. `down` ends it too."""
    program, port = _program(), _free_port()
    folder = run_folder() / f"prometheus-{port}"
    folder.mkdir(parents=True)
    file = folder / "prometheus.yml"
    file.write_text(configuration)
    arguments = {"config.file": file, "storage.tsdb.path": folder / "data", "web.listen-address": f"127.0.0.1:{port}"}
    argv = [str(program), *(f"--{key}={value}" for key, value in arguments.items())]
    Processes(run_folder(), program.parent).start(f"prometheus-{port}", argv)
    url = f"http://127.0.0.1:{port}"
    until("Prometheus", 20, lambda: _answers(url))
    return url


def stop_prometheus(url: str) -> None:
    """End the Prometheus at this URL and remove its data."""
    name = f"prometheus-{url.rpartition(':')[2]}"
    Processes(run_folder(), Path("/")).stop(name)
    shutil.rmtree(run_folder() / name, ignore_errors=True)


@contextlib.contextmanager
def prometheus(configuration: str) -> Iterator[str]:
    """The URL of a Prometheus that runs inside the `with`."""
    url = start_prometheus(configuration)
    try:
        yield url
    finally:
        stop_prometheus(url)
