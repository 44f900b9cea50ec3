"""Volumes and network file systems on a server whose disk fails, and what deletions cut short leave."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mounted_volume import VOLUME
from real_server import RealServer, until

import modal
from intermodal.volumes.live_folders import LiveFolders
from intermodal.volumes.store import VolumeStore
from modal._objects import client as client_module
from modal._sync import run
from modal.exception import Error, NotFoundError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
FOLDER = "sr-" + "0" * 22


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], RealServer]]:
    """Makes a server on the test's directory; what it knows is in a database there."""
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.setattr(client_module, "_default", None)

    def make() -> RealServer:
        server = RealServer(tmp_path, database_url=f"sqlite:///{tmp_path}/state.db")
        monkeypatch.setenv("MODAL_SERVER_URL", server.url)
        return server

    yield make
    if client_module._default is not None:
        run(client_module._default._close())


def put(found: Any) -> None:
    with found.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"text"), "/file")


def put_shared(found: Any) -> None:
    found.write_file("/file", io.BytesIO(b"text"))


@pytest.mark.parametrize(("kind", "place", "write"), [
    (modal.Volume, "volumes", put), (modal.NetworkFileSystem, "shared", put_shared),
])  # fmt: skip
def test_what_is_created_while_the_disk_fails_can_be_used_later(
    kind: Any, place: str, write: Callable[[Any], None], serve: Callable[[], RealServer], tmp_path: Path
) -> None:
    broken = tmp_path / "data" / place
    broken.parent.mkdir()
    broken.write_text("no directory can be made below a file")
    with serve():
        found = kind.from_name("it", create_if_missing=True)
        for _ in range(2):
            with pytest.raises(Error):
                write(found)
    with serve():  # it starts
        found = kind.from_name("it")
        with pytest.raises(Error):
            write(found)
        broken.unlink()
        write(found)
        assert b"".join(found.read_file("/file")) == b"text"
        kind.delete("it")
        until(lambda: not [name for _, _, names in os.walk(broken) for name in names], "its files to be gone")


def test_deletions_that_were_cut_short_are_finished(serve: Callable[[], RealServer], tmp_path: Path) -> None:
    data = tmp_path / "data"
    left = [
        data / "volumes" / f"{VOLUME}.gone",
        data / "volumes" / VOLUME,
        data / "shared" / f".{FOLDER}-0a1b2c3d",
        data / "shared" / ".drafts-0a1b2c3d",
        data / "shared" / FOLDER,
    ]
    for folder in left:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_text("x")
    with serve():
        # They have other names while they are being deleted.
        until(lambda: not [*(data / "volumes").iterdir(), *(data / "shared").iterdir()], "the directories to be gone")
        assert not [folder for folder in left if folder.exists()]


def test_nothing_is_kept_of_a_deleted_volume(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    store.create(VOLUME)
    with store.held(VOLUME):
        store.delete(VOLUME)
        with pytest.raises(NotFoundError):
            store.hold(VOLUME)
    for use in (store.hold, store.version, lambda volume_id: store.open(volume_id, "one")):
        with pytest.raises(NotFoundError):
            use(VOLUME)
    assert list(tmp_path.iterdir()) == []
    assert not store._holds._deleted | store._holds._used.keys() | store._known


def test_mounts_that_end_together_while_their_volume_is_deleted(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    store = VolumeStore(tmp_path)
    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(5) as pool:
            for number in range(300):
                volume_id = f"vo-{number:022d}"
                store.create(volume_id)
                sessions = [store.open(volume_id, name) for name in "abcd"]
                ends = [pool.submit(store.delete, volume_id), *(pool.submit(store.close, one) for one in sessions)]
                assert [end.exception() for end in ends] == [None] * 5
                assert list(tmp_path.iterdir()) == []
    finally:
        sys.setswitchinterval(before)


def test_a_deleted_network_file_system_is_not_made_anew(tmp_path: Path) -> None:
    folders = LiveFolders(tmp_path)
    folders.create(FOLDER)
    (folders.folder(FOLDER) / "file").write_text("x")
    folders.delete(FOLDER)
    with pytest.raises(NotFoundError, match="it was deleted"):
        folders.folder(FOLDER)
    assert list(tmp_path.iterdir()) == []
