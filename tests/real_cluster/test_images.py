"""Images: built from a Dockerfile as it stands, once for the same files, with nothing of this machine inside."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from real_cluster import Cluster, images
from real_cluster.archive import identity, write_image

_PROBE = Path(__file__).parent / "probe"


def _layers(archive: Path) -> dict[str, bytes]:
    """All regular files of all layers of a docker-archive."""
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        (image,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        for name in image["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                for entry in layer:
                    if entry.isfile() and (content := layer.extractfile(entry)):
                        found[entry.name.removeprefix("./")] = content.read()
    return found


def test_an_archive_made_by_hand_has_its_tag_and_equal_content_makes_an_equal_image(tmp_path: Path) -> None:
    files = {"bin": None, "bin/tool": b"x", "bin/link": "tool"}
    for name in ("a", "b"):
        write_image(tmp_path / name, "localhost/thing:1", files, ["/bin/tool"])
    assert identity(tmp_path / "a")[0] == "localhost/thing:1"
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.cluster
def test_an_image_holds_nothing_of_the_machine_that_built_it() -> None:
    files = _layers(images.build(_PROBE / "Dockerfile", "probe", "localhost/joulepath/probe:test"))
    assert "app/ask_api.py" in files
    assert not [name for name in files if name.endswith("pip.conf") and files[name]]
    assert files["etc/apt/sources.list"].decode() == f"deb {images.DEBIAN_MIRROR} {images.DEBIAN} main\n"
    assert not files.get("etc/resolv.conf")
    assert not files.get("etc/hostname")


@pytest.mark.cluster
def test_an_image_is_built_again_only_if_a_file_that_it_copies_changes(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("ARG BASE\nFROM ${BASE} AS last\nCOPY copied /\n")
    tag = "localhost/joulepath/probe-files:test"
    archives = []
    for copied, other in (("1", "1"), ("1", "2"), ("2", "2")):
        (context / "copied").write_text(copied)
        (context / "other").write_text(other)
        archives.append(images.build(context / "Dockerfile", "last", tag, files=[Path("copied")]))
    assert archives[0] == archives[1] != archives[2]
    assert _layers(archives[2])["copied"] == b"2"
    for archive in set(archives):
        shutil.rmtree(archive.parent)


@pytest.mark.cluster
def test_what_a_stage_has_installed_is_kept_when_a_source_changes(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    stages = ("FROM ${BASE} AS kept-packages", "COPY lock /", "RUN cat /proc/sys/kernel/random/uuid >/installed")
    last = ("FROM ${BASE} AS last", "COPY --from=kept-packages /installed /", "COPY source /")
    (tmp_path / "Dockerfile").write_text("\n".join(("ARG BASE", *stages, *last, "")))
    built = []
    for source in ("1", "2"):
        (tmp_path / "source").write_text(source)
        files = (Path("lock"), Path("source"))
        built.append(
            images.build(tmp_path / "Dockerfile", "last", "localhost/joulepath/probe-stages:test", files=files)
        )
    first, second = map(_layers, built)
    assert (first["source"], second["source"]) == (b"1", b"2")
    assert first["installed"] == second["installed"]
    for archive in built:
        shutil.rmtree(archive.parent)


@pytest.mark.cluster
def test_a_node_forgets_the_image_that_lost_its_tag(cluster: Cluster, tmp_path: Path, worker_id: str) -> None:
    node, tag = cluster.nodes[0], f"localhost/joulepath/probe-tag:{worker_id}"
    listings = []
    for content in (b"first", b"second", b"second"):
        write_image(tmp_path / "image.tar", tag, {"file": content})
        loaded = node.load(tmp_path / "image.tar")
        listings.append((loaded, node.ctr("images", "list", f"name=={tag}").splitlines()[1].split()[2]))
    assert [loaded for loaded, _ in listings] == [True, True, False]
    assert listings[0][1] not in node.ctr("images", "list")
    assert listings[1] == (True, listings[2][1])
    node.ctr("images", "remove", tag)
