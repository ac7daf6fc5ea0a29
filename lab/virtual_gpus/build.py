"""Compiles the C libraries once per version of their sources, into the cache of the user."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["library_dir"]


_SOURCES: Final = Path(__file__).parent / "c"
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-fPIC", "-shared", "-Wl,-z,defs")
_LIBRARIES: Final = {
    "libnvidia-ml.so.1": ("nvml", ("nvml", "nvml_meters", "nvml_facts", "node", "sim")),
    "libcuda.so.1": ("cuda", ("cuda", "cuda_work", "stream", "owner", "execute", "node", "sim")),
    "libvirtual-gpus.so": ("control", ("control", "node", "sim")),
}


def library_dir() -> Path:
    """The directory of the compiled libraries, compiling them first if need be.

    Raises:
        RuntimeError: The compiler fails or is missing; with its words.
    """
    target = _cache() / f"virtual-gpus-{_version()}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".virtual-gpus-") as scratch:
        partial = Path(scratch) / "libraries"
        partial.mkdir(mode=0o755)
        for name in _LIBRARIES:
            _compile(name, partial / name)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else was faster
                raise
    return target


def _cache() -> Path:
    if explicit := os.environ.get("JOULEPATH_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "joulepath"


def _version() -> str:
    digest = hashlib.sha256(repr((_FLAGS, _LIBRARIES)).encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(name: str, output: Path) -> None:
    exports, sources = _LIBRARIES[name]
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise RuntimeError("the virtual GPUs need a C compiler: install gcc, or name one in CC")
    command = [compiler, *_FLAGS, f"-Wl,-soname,{name}", f"-Wl,--version-script={_SOURCES}/exports-{exports}.map"]
    command += ["-o", str(output), *(str(_SOURCES / f"{s}.c") for s in sources), "-lpthread", "-lm"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"compiling {name} failed:\n{result.stderr}")
