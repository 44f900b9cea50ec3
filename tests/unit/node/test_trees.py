from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path

import pytest

from intermodal.model.container import BuiltImage
from intermodal.model.errors import BadImage, RuntimeFailure
from intermodal.node.trees import TreeStore, checked_path, tree_key
from modal._wire.messages.common import FileEntry


class Blobs:
    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    def add(self, path: str, content: bytes, mode: int = 0o644) -> FileEntry:
        digest = hashlib.sha256(content).hexdigest()
        (self.home / digest).write_bytes(content)
        (self.home / digest).chmod(0o644)
        return FileEntry(path, digest, len(content), mode)

    def path(self, digest: str) -> Path:
        return self.home / digest


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def store(tmp_path: Path, blobs: Blobs) -> TreeStore:
    store = TreeStore(tmp_path / "trees", blobs.path)
    store.open()
    return store


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layer = tmp_path / "layer"
    (layer / "private").mkdir(parents=True)
    (layer / "private").chmod(0o700)
    (layer / "bin").mkdir()
    return BuiltImage("im-1", (layer,))


async def test_a_tree_is_made_once_and_shared(store: TreeStore, blobs: Blobs, image: BuiltImage) -> None:
    files = [blobs.add("/root/a", b"a"), blobs.add("/private/run", b"b", 0o755)]
    first, second = await asyncio.gather(store.get(image, files), store.get(image, files))
    assert first == second == await store.get(image, list(files))
    assert (first / "root/a").read_bytes() == b"a"
    assert stat.S_IMODE((first / "private/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((first / "private").stat().st_mode) == 0o700
    if os.geteuid() == 0:
        assert (first / "root/a").samefile(blobs.path(files[0].digest))
    assert not (first / "private/run").samefile(blobs.path(files[1].digest))


@pytest.mark.parametrize(
    "paths", [["/a", "/a/b"], ["/a/b", "/a"], ["/bin"], ["/../a"], ["a"], ["/"], ["//a"], ["/a\0b"], [""]]
)
async def test_files_that_do_not_fit_are_refused(
    store: TreeStore, blobs: Blobs, image: BuiltImage, paths: list[str], tmp_path: Path
) -> None:
    with pytest.raises(BadImage):
        await store.get(image, [blobs.add(path, b"x") for path in paths])
    assert list((tmp_path / "trees").iterdir()) == []


async def test_a_missing_blob_is_named(store: TreeStore, image: BuiltImage) -> None:
    with pytest.raises(RuntimeFailure, match="/root/gone is missing"):
        await store.get(image, [FileEntry("/root/gone", "0" * 64, 1)])


def test_unfinished_and_old_trees_are_removed(tmp_path: Path, store: TreeStore) -> None:
    home = tmp_path / "trees"
    for name in (".new-x", "old", "fresh"):
        (home / name).mkdir()
    os.utime(home / "old", (0, 0))
    store.open()
    assert [tree.name for tree in home.iterdir()] == ["fresh"]


def test_the_key_covers_image_paths_contents_and_modes(blobs: Blobs, image: BuiltImage) -> None:
    one = blobs.add("/a", b"a")
    keys = {
        tree_key(image, [one]),
        tree_key(BuiltImage("im-2", ()), [one]),
        tree_key(image, [blobs.add("/a", b"b")]),
        tree_key(image, [blobs.add("/b", b"a")]),
        tree_key(image, [blobs.add("/a", b"a", 0o755)]),
    }
    assert len(keys) == 5


def test_paths_are_checked() -> None:
    assert str(checked_path("/root/a")) == "/root/a"
