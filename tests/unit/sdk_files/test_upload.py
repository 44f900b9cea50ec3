"""Uploads and downloads by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from blob_server import BlobServer

from modal._local_files import LocalFile
from modal._upload import CHUNK, download_bytes, upload_bytes, upload_files
from modal._wire.messages.blob import BlobRef
from modal.exception import InvalidError, NotFoundError, RemoteError


@pytest.fixture
def server() -> BlobServer:
    return BlobServer()


def make(directory: Path, name: str, content: bytes) -> LocalFile:
    path = directory / name
    path.write_bytes(content)
    return LocalFile(path, f"/root/{name}")


async def test_files_are_uploaded_once_and_described_in_order(server: BlobServer, tmp_path: Path) -> None:
    files = [make(tmp_path, "b", b"same"), make(tmp_path, "a", b"same"), make(tmp_path, "empty", b"")]
    entries = await upload_files(server, files)
    assert [(entry.path, entry.size, entry.mode) for entry in entries] == [
        ("/root/b", 4, 0o644),
        ("/root/a", 4, 0o644),
        ("/root/empty", 0, 0o644),
    ]
    assert server.puts == 2
    await upload_files(server, files)
    assert server.puts == 2


async def test_of_two_files_at_one_place_the_last_wins(server: BlobServer, tmp_path: Path) -> None:
    first, second = make(tmp_path, "one", b"1"), make(tmp_path, "two", b"2")
    entries = await upload_files(server, [first, LocalFile(second.path, first.remote_path)])
    assert [entry.digest for entry in entries] == [hashlib.sha256(b"2").hexdigest()]


async def test_a_large_file_is_sent_in_chunks(server: BlobServer, tmp_path: Path) -> None:
    content = os.urandom(3 * CHUNK + 17)
    [entry] = await upload_files(server, [make(tmp_path, "big", content)])
    assert server.blobs[entry.digest] == content
    assert server.largest_item == CHUNK


async def test_a_missing_file_is_an_error_that_names_it(server: BlobServer, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"gone.*cannot be read"):
        await upload_files(server, [LocalFile(tmp_path / "gone", "/x")])


@pytest.mark.parametrize("change", [b"X" * (2 * CHUNK), b"y", b"y" * (5 * CHUNK)])
async def test_a_file_that_changes_while_it_is_sent_is_an_error_that_names_it(
    server: BlobServer, tmp_path: Path, change: bytes
) -> None:
    file = make(tmp_path, "moving", b"x" * (2 * CHUNK))

    async def overwrite(request) -> None:
        file.path.write_bytes(change)

    server.before_item = overwrite
    with pytest.raises(InvalidError, match=r"moving.*changed while it was being uploaded"):
        await upload_files(server, [file])
    assert server.blobs == {}


async def test_bytes_go_up_and_come_down(server: BlobServer) -> None:
    data = os.urandom(2 * CHUNK + 1)
    ref = await upload_bytes(server, memoryview(data))
    assert ref == BlobRef(hashlib.sha256(data).hexdigest(), len(data))
    assert server.largest_item == CHUNK
    assert await download_bytes(server, ref) == data
    assert await download_bytes(server, await upload_bytes(server, b"")) == b""


async def test_a_damaged_download_is_an_error(server: BlobServer) -> None:
    ref = await upload_bytes(server, b"payload")
    server.damage = True
    with pytest.raises(RemoteError, match="damaged"):
        await download_bytes(server, ref)


async def test_an_unknown_blob_is_not_found(server: BlobServer) -> None:
    with pytest.raises(NotFoundError):
        await download_bytes(server, BlobRef("0" * 64, 1))
