"""Writing an image by hand: a docker-archive of one layer, without a builder or a registry.

The layout is what `docker save` writes: a manifest that names a configuration and layers, all in one tar file. Times
and owners are fixed, so that equal content gives an equal image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["identity", "write_image"]


_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _add(tar: tarfile.TarFile, name: str, content: bytes | str | None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755
    if content is None:
        entry.type = tarfile.DIRTYPE
        entry.mode = 0o1777 if name == "tmp" else 0o755
        tar.addfile(entry)
    elif isinstance(content, str):
        entry.type = tarfile.SYMTYPE
        entry.linkname = content
        tar.addfile(entry)
    else:
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def write_image(
    target: Path, tag: str, files: Mapping[str, bytes | str | None], entrypoint: Sequence[str] = ()
) -> None:
    """Write an image with these files: bytes are a file's content, a str a link's target, None a folder."""
    layer = io.BytesIO()
    entries = {"etc": None, "tmp": None, "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", **files}
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in sorted(entries):
            _add(tar, name, entries[name])
    layer_digest = hashlib.sha256(layer.getvalue()).hexdigest()
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [_PATH], "Entrypoint": list(entrypoint) or None},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "joulepath"}],
        }
    ).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{layer_digest}/layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        _add(tar, name, configuration)
        _add(tar, f"{layer_digest}/layer.tar", layer.getvalue())
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def identity(archive: Path) -> tuple[str, str]:
    """(tag, digest of the configuration) of the image in a docker-archive."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        if manifest is None:
            raise ValueError(
                f"{archive} has no manifest.json: it is no docker-archive (`buildah push IMAGE docker-archive:FILE`)."
            )
        image = json.load(manifest)[0]
    return image["RepoTags"][0], image["Config"]
