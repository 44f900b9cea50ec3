"""Uploads to volumes and network file systems: what comes of directories, links, names and file objects."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_server import RealServer, until

import modal
from modal.exception import InvalidError, NotFoundError
from modal.volume import FileEntryType

pytestmark = [
    pytest.mark.usefixtures("real_server"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away"),
]


@pytest.fixture
def volume() -> Iterator[modal.Volume]:
    with modal.Volume.ephemeral() as volume:
        yield volume


@pytest.fixture
def nfs() -> Iterator[modal.NetworkFileSystem]:
    with modal.NetworkFileSystem.ephemeral() as nfs:
        yield nfs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Directories of which most have nothing that can be sent, one reached through a link, and a loop."""
    root, beside = tmp_path / "tree", tmp_path / "beside"
    for folder in (root / "empty/deep", root / "dangling", root / "pipes", root / "full/of", beside / "empty"):
        folder.mkdir(parents=True)
    (root / "dangling/link").symlink_to("gone")
    os.mkfifo(root / "pipes/pipe")
    (root / "full/of/file").touch()
    (root / "full/loop").symlink_to("..")
    (root / "linked").symlink_to("../beside")
    return root


FOLDERS = ["dangling", "empty", "empty/deep", "full", "full/of", "linked", "linked/empty", "pipes"]


def folders(found: list[modal.volume.FileEntry]) -> list[str]:
    return sorted(one.path for one in found if one.type is FileEntryType.DIRECTORY)


def test_directories_without_files_arrive(
    volume: modal.Volume, nfs: modal.NetworkFileSystem, tree: Path, tmp_path: Path
) -> None:
    with volume.batch_upload() as batch:
        batch.put_directory(tree, "/")
    assert folders(volume.listdir("/", recursive=True)) == FOLDERS
    nfs.add_local_dir(tree, "/x")
    assert folders(nfs.listdir("/x/**")) == [f"x/{path}" for path in FOLDERS]
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path / "beside", "/only", recursive=False)
    assert folders(volume.listdir("/only", recursive=True)) == []
    assert "only" in folders(volume.listdir("/"))


def test_a_slash_behind_a_path_means_the_directory(nfs: modal.NetworkFileSystem, tmp_path: Path) -> None:
    (tmp_path / "name").write_text("x")
    nfs.add_local_file(tmp_path / "name", "/q/")
    nfs.add_local_file(tmp_path / "name")
    assert b"".join(nfs.read_file("/q/name")) + b"".join(nfs.read_file("/name")) == b"xx"


def test_a_file_object_that_is_closed_too_early(volume: modal.Volume, nfs: modal.NetworkFileSystem) -> None:
    file = io.BytesIO(b"x")
    batch = volume.batch_upload()
    with pytest.raises(InvalidError, match=r"'/data\.bin' was closed"), batch:  # noqa: PT012
        batch.put_file(io.BytesIO(b"y"), "/first")
        batch.put_file(file, "/data.bin")
        file.close()
    assert volume.listdir("/") == []
    with pytest.raises(InvalidError, match="'/data' was closed"):
        nfs.write_file("/data", file)


def test_one_path_twice_in_an_upload(volume: modal.Volume, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("directory")
    for again in ("/d/x", "d/x", "//d/./x"):
        with pytest.raises(InvalidError, match="'/d/x' is in this upload twice"), volume.batch_upload() as batch:  # noqa: PT012
            batch.put_directory(tmp_path, "/d")
            batch.put_file(io.BytesIO(b"file"), again)
    assert volume.listdir("/") == []
    with volume.batch_upload(force=True) as batch:
        batch.put_directory(tmp_path, "/d")
        batch.put_file(io.BytesIO(b"file"), "/d/x")
    assert b"".join(volume.read_file("/d/x")) == b"file"
    with pytest.raises(FileExistsError, match="/d/x is there already"), volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/d")


class Slow(io.BytesIO):
    """A file that is read once something else was done."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__(b"slow")
        self._meanwhile = meanwhile

    def read(self, size: int | None = -1, /) -> bytes:
        self._meanwhile()
        self._meanwhile = lambda: None
        return super().read(size)


@pytest.mark.parametrize(("path", "error"), [("/race", FileExistsError), ("/race/y", InvalidError)])
def test_an_upload_that_another_one_has_overtaken(path: str, error: type[Exception], volume: modal.Volume) -> None:
    def overtake() -> None:
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"quick"), "/race")

    with pytest.raises(error, match=r"'?/race'? is there"), volume.batch_upload() as batch:  # noqa: PT012
        batch.put_file(Slow(overtake), path)
        batch.put_file(io.BytesIO(b"x"), "/other")
    assert [entry.path for entry in volume.listdir("/", recursive=True)] == ["race"]
    assert b"".join(volume.read_file("/race")) == b"quick"
    with volume.batch_upload(force=True) as batch:
        batch.put_file(Slow(lambda: volume.remove_file("/race")), "/race")
    assert b"".join(volume.read_file("/race")) == b"slow"


def test_what_is_being_written_to_a_network_file_system_is_not_in_it(
    nfs: modal.NetworkFileSystem, real_server: RealServer
) -> None:
    shared = real_server.settings.data_dir / "shared"
    seen: list[list[str]] = []

    def look() -> None:
        until(lambda: list(shared.rglob(".intermodal-*")), "the file to be begun")
        folder = shared / nfs.object_id
        seen.append([str(path.relative_to(folder)) for path in folder.rglob("*")])
        seen.append([entry.path for entry in nfs.listdir("/**")])

    class SecondPart(Slow):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(2) if self.tell() else io.BytesIO.read(self, 2)

    nfs.write_file("/d/file", SecondPart(look))
    assert seen == [["d"], ["d"]]
    assert b"".join(nfs.read_file("/d/file")) == b"slow"
    assert not list(shared.rglob(".intermodal-*"))


def test_messages_name_the_volume() -> None:
    volume = modal.Volume.lookup("weights", create_if_missing=True)
    for ask in (
        lambda: volume.listdir("/x"),
        lambda: list(volume.read_file("/x")),
        lambda: volume.remove_file("/x"),
        lambda: volume.copy_files(["/x"], "/y"),
    ):
        with pytest.raises(NotFoundError, match="'/x' in the volume 'weights'"):
            ask()
    nfs = modal.NetworkFileSystem.lookup("shared", create_if_missing=True)
    with pytest.raises(NotFoundError, match="'/x' in the network file system 'shared'"):
        nfs.listdir("/x")
