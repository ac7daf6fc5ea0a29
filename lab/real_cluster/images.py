"""Images without a registry: the cluster's own by hand, everybody else's by buildah from a Dockerfile.

No public base image can be counted on, so the base is a small Debian made by debootstrap. It and every built image
are kept as docker-archives under a hash of what went in. The build sees exactly the files that the Dockerfile's COPY
lines name, and the machine's certificates and package index as mounts: neither gets into the image.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from .archive import write_image
from .commands import CommandError, run
from .kept import content_hash, kept, locked
from .layout import cache_folder
from .machine import program
from .progress import step

__all__ = ["BASE_TAG", "DEBIAN", "DEBIAN_MIRROR", "base", "build", "context_files", "own_images"]


DEBIAN: Final = "bookworm"
DEBIAN_MIRROR: Final = "http://deb.debian.org/debian"
BASE_TAG: Final = f"localhost/joulepath/base:{DEBIAN}"
_BASE_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
_FILES: Final = Path(__file__).parent / "files"
_CERTIFICATES: Final = Path("/etc/ssl/certs")
_KEPT_BUILDS: Final = 2
_WITHOUT: Final = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def own_images(binaries: Path) -> tuple[Path, ...]:
    """The cluster's own images: pause, busybox, coredns, training-operator (`localhost/joulepath/NAME:1`)."""
    busybox = Path(program("busybox") or "")
    sources = [busybox, binaries / "coredns", binaries / "training-operator", *sorted(_FILES.iterdir())]
    key = content_hash([*sources, Path(__file__).with_name("archive.py")])

    def make(folder: Path) -> None:
        pause = folder / "pause"
        run(["gcc", "-O2", "-static", "-s", "-o", pause, _FILES / "pause.c"])
        applets = [name for name in run([busybox, "--list"]).split() if name != "busybox"]
        links = {f"bin/{name}": "busybox" for name in applets}
        folders = dict.fromkeys(("bin", "proc", "sys", "dev", "root"))
        manager = {
            "manager": (binaries / "training-operator").read_bytes(),
            "etc/config": None,
            "etc/config/initContainer.yaml": (_FILES / "init-container.yaml").read_bytes(),  # where it looks
        }
        coredns = {"coredns": (binaries / "coredns").read_bytes()}

        def write(name: str, files: Mapping[str, bytes | str | None], *entrypoint: str) -> None:
            write_image(folder / f"{name}.tar", f"localhost/joulepath/{name}:1", files, entrypoint)

        write("pause", {"pause": pause.read_bytes()}, "/pause")
        write("busybox", {**folders, **links, "bin/busybox": busybox.read_bytes()})
        write("coredns", coredns, "/coredns")
        write("training-operator", manager)
        pause.unlink()

    folder = kept(cache_folder() / "images" / f"own-{key}", make)
    _forget_old("own", folder)
    return tuple(sorted(folder.glob("*.tar")))


def _mirror() -> str:
    """The Debian mirror that this machine uses, else the public one."""
    if not shutil.which("apt-get"):
        return DEBIAN_MIRROR
    query = ["Created-By: Packages", "Component: main", f"Codename: {DEBIAN}", "Origin: Debian"]
    answer = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *query]).split()
    return answer[0] if answer else DEBIAN_MIRROR


def base() -> Path:
    """The root file system of the base image, as a tar file. About a minute the first time."""

    def make(folder: Path) -> None:
        with step(f"Debian {DEBIAN} base image", 70), tempfile.TemporaryDirectory(dir=folder) as name:
            root = Path(name, "root")
            packages = f"--include={','.join(_BASE_PACKAGES)}"
            run([program("debootstrap") or "debootstrap", "--variant=minbase", packages, DEBIAN, root, _mirror()])
            for path in _WITHOUT:
                shutil.rmtree(root / path, ignore_errors=True)
                (root / path).mkdir(parents=True)
            # debootstrap copies these from the machine
            (root / "etc/apt/sources.list").write_text(f"deb {DEBIAN_MIRROR} {DEBIAN} main\n")
            for path in ("etc/resolv.conf", "etc/hostname"):
                (root / path).write_text("")
            run(["tar", "--numeric-owner", "--sort=name", "-C", root, "-cf", folder / "root.tar", "."])

    key = content_hash([DEBIAN, *_BASE_PACKAGES, *_WITHOUT])
    return kept(cache_folder() / "images" / f"base-{key}", make) / "root.tar"


def _storage_driver() -> str:
    """Overlay, which stores and copies differences only; it can't be stacked on an overlay (a container's disk)."""
    return "vfs" if run(["stat", "--file-system", "--format=%T", cache_folder()]).strip() == "overlayfs" else "overlay"


def _buildah(*arguments: str | Path) -> str:
    driver = _storage_driver()
    storage = cache_folder() / "buildah" / driver
    where = ["--root", f"{storage}/root", "--runroot", f"{storage}/run", "--storage-driver", driver]
    # in a mount namespace of its own: else its storage would leave a mount behind
    return run(["unshare", "--mount", "buildah", *where, *arguments], env={"BUILDAH_ISOLATION": "chroot"})


def _ensure_base() -> None:
    tag = f"{BASE_TAG}-{base().parent.name}"
    with locked(cache_folder() / ".buildah-base.lock"):
        if not _buildah("images", "--noheading", "--filter", f"reference={tag}").strip():
            container = _buildah("from", "scratch").strip()
            _buildah("add", "--quiet", container, base(), "/")
            _buildah("config", "--cmd", "/bin/bash", "--env", "LANG=C.UTF-8", container)
            _buildah("commit", "--quiet", "--rm", container, tag)
            _buildah("tag", tag, BASE_TAG)


def _copied(dockerfile: Path) -> Iterator[str]:
    """The sources of COPY and ADD lines that come from the build context."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].upper() in {"COPY", "ADD"} and not any(word.startswith("--from=") for word in words):
            yield from [word for word in words[1:] if not word.startswith("--")][:-1]


def context_files(dockerfile: Path, context: Path) -> tuple[Path, ...]:
    """The files that the Dockerfile copies, relative to the context; git-ignored ones are left out."""
    sources = [source.removeprefix("./").rstrip("/") or "." for source in _copied(dockerfile)]
    if not sources:
        return ()
    listing = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *sources], cwd=context)
    files = {Path(name) for name in listing.split("\0") if name}
    return tuple(sorted(path for path in files if (context / path).is_file()))


def _pip_configuration() -> str:
    """How this machine reaches its Python package index, as a pip.conf for use inside a build."""
    parser = configparser.ConfigParser()
    homes = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf", os.environ.get("PIP_CONFIG_FILE", ""))
    parser.read([Path(path).expanduser() for path in homes if path])
    lines = ["[global]", f"cert = {_CERTIFICATES}/ca-certificates.crt"]
    for key in ("index-url", "extra-index-url", "trusted-host", "proxy"):
        value = os.environ.get(f"PIP_{key.upper().replace('-', '_')}")
        if value := value or parser.get("global", key, fallback=None):
            lines.append(f"{key} = {value.replace(chr(10), chr(10) + '  ')}")
    return "\n".join(lines) + "\n"


def build(
    dockerfile: Path,
    target: str | None,
    tag: str,
    *,
    context: Path | None = None,
    files: Iterable[Path] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> Path:
    """Build one target of a Dockerfile on our base (its `ARG BASE`); return the docker-archive tagged `tag`.

    `context` is the folder that COPY's paths are relative to (default: the Dockerfile's), `files` the relative paths
    that the build sees (default: what its COPY lines name, without what git ignores). Nothing is built if Dockerfile,
    files and arguments are as before.
    """
    context = context or dockerfile.parent
    listed = sorted(files) if files is not None else context_files(dockerfile, context)
    given = [f"{key}={value}" for key, value in sorted((arguments or {}).items())]
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)  # a copy: the files may change while the build waits for its turn
        (here / "context").mkdir()
        shutil.copy(dockerfile, here / "Dockerfile")
        for path in listed:
            copy = here / "context" / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / path, copy)
        copies = [here / "context" / path for path in listed]
        modes = [f"{path}:{copy.stat().st_mode & 0o111}" for path, copy in zip(listed, copies, strict=True)]
        key = content_hash([base().parent.name, here / "Dockerfile", target or "", tag, *given, *modes, *copies])
        slug = re.sub(r"[^a-zA-Z0-9]+", "-", tag)
        folder = cache_folder() / "images" / f"{slug}-{key}"
        archive = kept(folder, lambda partial: _build(here, target, tag, given, partial / "image.tar")) / "image.tar"
    _forget_old(slug, folder)
    return archive


def _build(here: Path, target: str | None, tag: str, arguments: Sequence[str], archive: Path) -> None:
    """Build `here`'s Dockerfile and context, and export the image."""
    (here / "pip.conf").write_text(_pip_configuration())
    mounts = [f"{_CERTIFICATES}:{_CERTIFICATES}:ro", f"{here / 'pip.conf'}:/etc/xdg/pip/pip.conf:ro"]
    options = ["--network=host", "--ulimit", "nofile=1024:1024", "--layers", "--quiet"]
    options += [word for mount in mounts for word in ("--volume", mount)]
    options += [word for text in (f"BASE={BASE_TAG}", *arguments) for word in ("--build-arg", text)]
    files: list[str | Path] = ["--file", here / "Dockerfile", here / "context"]
    store = cache_folder() / ".buildah.lock"
    # the targets of a Dockerfile share stages: one builds them, the next ones find them
    turn = cache_folder() / f".buildah-{content_hash([here / 'Dockerfile'])}.lock"
    with locked(turn), locked(store, shared=True), step(f"image {tag}", 40):
        _ensure_base()
        for stage in _stages_of(here / "Dockerfile", target):
            _buildah("build", *options, "--target", stage, "--tag", f"localhost/joulepath/stage:{stage}", *files)
        _buildah("build", *options, *(("--target", target) if target else ()), "--tag", tag, *files)
        _buildah("push", "--quiet", tag, f"docker-archive:{archive}:{tag}")
    with contextlib.suppress(CommandError, BlockingIOError), locked(store, wait=False):
        _buildah("rmi", "--prune")  # layers that no named image needs any more


def _stages_of(dockerfile: Path, target: str | None) -> list[str]:
    """What a target (None: the last stage) copies from: named, so that what is installed there outlives the pruning."""
    text = dockerfile.read_text()
    found = re.split(r"(?m)^FROM .* AS (\S+)$", text)
    copied = dict(zip(found[1::2], (re.findall(r"(?m)^COPY --from=(\S+)", body) for body in found[2::2]), strict=True))
    wanted = target or next(reversed(copied), "")
    return [stage for stage in copied.get(wanted, ()) if stage in copied]


def _forget_old(name: str, current: Path) -> None:
    os.utime(current)
    builds = [path for path in current.parent.glob(f"{name}-*") if re.fullmatch(rf"{name}-[0-9a-f]{{12}}", path.name)]
    for path in sorted(builds, key=lambda path: path.stat().st_mtime)[:-_KEPT_BUILDS]:
        shutil.rmtree(path, ignore_errors=True)
