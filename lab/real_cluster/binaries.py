"""The programs of the cluster, built from their Go modules, or found on the machine in the right version.

The versions are the `go.mod` and `go.sum` files below `go/`: one module a tool set, so that no set bends the
dependencies of another. Each program is kept under a hash of them. Nothing is patched.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from .commands import run
from .kept import content_hash, kept, locked
from .layout import KUBERNETES_VERSION, cache_folder
from .machine import output_of
from .progress import say, step

__all__ = [
    "CONTAINERD_1",
    "CONTAINERD_2",
    "KUEUE",
    "NEWER_RUNC",
    "TRAINER",
    "binaries",
    "jobset_manifests",
    "kueue_manifests",
    "operator_manifests",
    "other_binaries",
    "program",
    "trainer_manifests",
]


_MODULES: Final = Path(__file__).parent / "go"
_KUBERNETES: Final = f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}"
_MINOR: Final = re.escape(KUBERNETES_VERSION.rpartition(".")[0])


@dataclass(frozen=True, slots=True)
class _Tool:
    """One program; `found_by` = (arguments, pattern): how to know a usable one that the machine has already."""

    name: str
    module: str
    package: str
    expected_s: float
    ldflags: str = ""
    found_by: tuple[tuple[str, ...], str] | None = None
    tags: str = ""
    """Those of Go's build, which link it with a C library."""


def _kubernetes(name: str, expected_s: float, *version: str) -> _Tool:
    found_by = (version or ("--version",), rf"\bv{_MINOR}\.\d+\b")
    return _Tool(name, "controlplane", f"k8s.io/kubernetes/cmd/{name}", expected_s, _KUBERNETES, found_by)


def _containerd(name: str, expected_s: float) -> _Tool:
    package = f"github.com/containerd/containerd/v2/cmd/{name}"
    return _Tool(name, "containerd", package, expected_s, found_by=(("--version",), r"\bv?2\.\d+\.\d+"))


_TOOLS: Final = (
    _Tool(
        "etcd", "controlplane", "go.etcd.io/etcd/server/v3", 60, found_by=(("--version",), r"etcd Version: 3\.[67]\.")
    ),
    _kubernetes("kube-apiserver", 240),
    _kubernetes("kube-controller-manager", 80),
    _kubernetes("kube-scheduler", 15),
    _kubernetes("kubelet", 30),
    _kubernetes("kube-proxy", 15),
    _kubernetes("kubectl", 25, "version", "--client"),
    _containerd("containerd", 50),
    _containerd("containerd-shim-runc-v2", 5),
    _containerd("ctr", 5),
    _Tool("coredns", "coredns", ".", 60),
    _Tool(
        "training-operator",
        "trainingoperator",
        "github.com/kubeflow/training-operator/cmd/training-operator.v1",
        80,
    ),
    _Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm", 100, found_by=(("version",), r"v4\.\d+\.\d+")),
)


def _containerd_1(name: str, expected_s: float) -> _Tool:
    package = f"github.com/containerd/containerd/cmd/{name}"
    return _Tool(name, "containerd1", package, expected_s, found_by=(("--version",), r"\bv?1\.7\.\d+"))


def _runc() -> _Tool:
    """With seccomp, which the kubelet asks of every sandbox: so it is linked with that library."""
    found_by = (("--version",), r"runc version 1\.([2-9]|\d\d)\.")
    return _Tool("runc", "runc", "github.com/opencontainers/runc", 20, found_by=found_by, tags="seccomp")


CONTAINERD_2: Final = "containerd 2"
CONTAINERD_1: Final = "containerd 1.7"
NEWER_RUNC: Final = "runc with user namespaces"
KUEUE: Final = "Kueue"
TRAINER: Final = "Kubeflow Trainer and JobSet"
_TRAINER: Final = "github.com/kubeflow/trainer/v2"
_OTHERS: Final[Mapping[str, tuple[_Tool, ...]]] = {
    CONTAINERD_2: (),
    CONTAINERD_1: (
        _containerd_1("containerd", 50),
        _containerd_1("containerd-shim-runc-v2", 5),
        _containerd_1("ctr", 5),
    ),
    NEWER_RUNC: (_runc(),),
    KUEUE: (_Tool("kueue", "kueue", "sigs.k8s.io/kueue/cmd/kueue", 140),),
    TRAINER: (
        _Tool("jobset", "jobset", "sigs.k8s.io/jobset", 30),
        _Tool("trainer-controller-manager", "trainer", f"{_TRAINER}/cmd/trainer-controller-manager", 70),
    ),
}


def _module_key(module: str) -> str:
    folder = _MODULES / module
    return content_hash(sorted(path for path in folder.iterdir() if path.suffix in {".mod", ".sum", ".go"}))


def _on_machine(tool: _Tool) -> Path | None:
    if tool.found_by is None:
        return None
    arguments, pattern = tool.found_by
    for path in (os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ.get("PATH", "")):
        found = shutil.which(tool.name, path=path) if path else None
        if found and re.search(pattern, output_of([found, *arguments])):
            return Path(found).resolve()
    return None


def _go_cache() -> Path:
    return cache_folder() / "go-build"


def _go(module: str, *arguments: str, cgo: bool = False) -> str:
    environment = {
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "-trimpath -buildvcs=false",
        "GOCACHE": str(_go_cache()),
    }
    return run(["go", *arguments], cwd=_MODULES / module, env=environment)


def _build(tool: _Tool, folder: Path) -> None:
    with step(f"building {tool.name}", tool.expected_s):
        ldflags = f"-s -w {tool.ldflags}"
        arguments = ("-tags", tool.tags, "-ldflags", ldflags, "-o", str(folder / tool.name), tool.package)
        _go(tool.module, "build", "-p", "2", *arguments, cgo=bool(tool.tags))


def _built(tool: _Tool) -> Path:
    key = content_hash([_module_key(tool.module), tool.package, tool.ldflags, *tool.tags.split()])
    return cache_folder() / "tools" / f"{tool.name}-{key}"


def binaries() -> Path:
    """A folder with all the programs (links), built or found. 10 to 20 minutes the first time on two cores."""
    return _linked(_obtain(_TOOLS))


def other_binaries(other: str) -> Path:
    """The same with those of `CONTAINERD_1` or `NEWER_RUNC` in the place of ours, or with `KUEUE` or `TRAINER` besides;
    minutes the first time."""
    return _linked({**_obtain(_TOOLS), **_obtain(_OTHERS[other])})


def _linked(chosen: Mapping[str, Path]) -> Path:
    name = content_hash([f"{name}={path}" for name, path in sorted(chosen.items())])

    def link(folder: Path) -> None:
        for name, path in chosen.items():
            (folder / name).symlink_to(path)

    return kept(cache_folder() / "bin" / name, link)


def program(name: str) -> Path:
    """One of the programs, built or found.

    Raises:
        ValueError: There is none of that name.
    """
    tools = [tool for tool in _TOOLS if tool.name == name]
    if not tools:
        raise ValueError(f"there is no program {name!r}; the programs are {', '.join(tool.name for tool in _TOOLS)}")
    return _obtain(tools)[name]


def _obtain(tools: Sequence[_Tool]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    to_build: list[_Tool] = []
    for tool in tools:
        folder = _built(tool)
        if folder.exists():
            chosen[tool.name] = folder / tool.name
        elif path := _on_machine(tool):
            say(f"{tool.name}: taking {path}")
            chosen[tool.name] = path
        else:
            to_build.append(tool)
    if to_build:
        minutes = sum(tool.expected_s for tool in to_build) / 60
        say(f"Building {len(to_build)} programs from source: {minutes:.0f} to {2 * minutes:.0f} minutes, once.")
        with locked(cache_folder() / ".go-build.lock"):  # two compilations at once would only slow each other
            for tool in to_build:
                chosen[tool.name] = kept(_built(tool), partial(_build, tool)) / tool.name
            shutil.rmtree(_go_cache(), ignore_errors=True)  # 3 GB that only a change of versions would use again
    return chosen


def operator_manifests() -> Path:
    """The training operator's own kustomize manifests, of the same module as its program."""
    return _manifests("operator", "trainingoperator", "github.com/kubeflow/training-operator", "manifests")


def kueue_manifests() -> Path:
    """Kueue's, likewise."""
    return _manifests("kueue", "kueue", "sigs.k8s.io/kueue", "config")


def jobset_manifests() -> Path:
    """JobSet's, likewise."""
    return _manifests("jobset", "jobset", "sigs.k8s.io/jobset", "config")


def trainer_manifests() -> Path:
    """The Kubeflow Trainer's, likewise."""
    return _manifests("trainer", "trainer", _TRAINER, "manifests")


def _manifests(name: str, module: str, path: str, source: str) -> Path:
    """A folder of the sources that a Go module is built from."""

    def copy(folder: Path) -> None:
        _go(module, "mod", "download", path)
        sources = Path(_go(module, "list", "-m", "-f", "{{.Dir}}", path).strip())
        shutil.copytree(sources / source, folder / "manifests", copy_function=shutil.copyfile)
        for copied in (folder, *folder.rglob("*")):
            copied.chmod(0o755 if copied.is_dir() else 0o644)

    return kept(cache_folder() / "tools" / f"{name}-manifests-{_module_key(module)}", copy) / "manifests"
