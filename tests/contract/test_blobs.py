"""What every blob store promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from intermodal.blobs.interface import BlobStore
from intermodal.blobs.local import LocalBlobStore
from intermodal.model.errors import DiskFull
from modal.exception import InvalidError, NotFoundError

CONTENT = b"some bytes" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def store(tmp_path: Path) -> BlobStore:
    store = LocalBlobStore(tmp_path / "blobs")
    await store.open()
    return store


def unfinished(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "blobs" / "incoming").iterdir())


async def put(store: BlobStore, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    writer = store.writer(digest, len(content))
    await writer.write(content)
    await writer.commit()
    return digest


async def test_a_committed_blob_is_there_and_read_only(store: BlobStore) -> None:
    assert not store.has(DIGEST)
    writer = store.writer(DIGEST, len(CONTENT))
    for start in range(0, len(CONTENT), 999):
        await writer.write(CONTENT[start : start + 999])
    assert not store.has(DIGEST)
    await writer.commit()
    assert store.has(DIGEST)
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o444


async def test_an_empty_blob_and_a_large_one_can_be_kept(store: BlobStore) -> None:
    assert store.path(await put(store, b"")).read_bytes() == b""
    large = os.urandom(1 << 20)
    assert store.path(await put(store, large)).read_bytes() == large


async def test_a_sweep_deletes_what_is_old_and_not_kept(store: BlobStore) -> None:
    kept, old, claimed = await put(store, b"kept"), await put(store, b"old"), await put(store, b"claimed")
    for digest in (kept, old, claimed):
        os.utime(store.path(digest), (1000.0, 1000.0))
    new = await put(store, b"new")
    under_way = store.writer(DIGEST, len(CONTENT))
    await under_way.write(CONTENT[:100])
    assert store.claim(claimed)
    assert not store.claim(DIGEST)
    assert await store.sweep({kept}, older_than=2000.0) == 1
    assert [store.has(digest) for digest in (kept, old, claimed, new)] == [True, False, True, True]
    await under_way.write(CONTENT[100:])
    await under_way.commit()
    assert await store.sweep(set(), older_than=time.time() + 100) == 4


async def test_a_blob_can_be_put_twice_and_by_two_at_once(store: BlobStore, tmp_path: Path) -> None:
    await asyncio.gather(put(store, CONTENT), put(store, CONTENT))
    await put(store, CONTENT)
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert unfinished(tmp_path) == []


async def test_more_or_fewer_bytes_than_announced_are_refused(store: BlobStore, tmp_path: Path) -> None:
    writer = store.writer(DIGEST, 5)
    with pytest.raises(InvalidError, match="larger than the announced 5 bytes"):
        await writer.write(b"123456")
    await writer.abort()
    short = store.writer(DIGEST, len(CONTENT))
    await short.write(b"few")
    with pytest.raises(InvalidError, match="3 bytes instead of 10000"):
        await short.commit()
    assert not store.has(DIGEST)
    assert unfinished(tmp_path) == []


async def test_content_of_another_digest_is_refused(store: BlobStore, tmp_path: Path) -> None:
    writer = store.writer(DIGEST, len(CONTENT))
    await writer.write(CONTENT[:-1] + b"!")
    with pytest.raises(InvalidError, match="another digest"):
        await writer.commit()
    assert not store.has(DIGEST)
    assert unfinished(tmp_path) == []


async def test_an_aborted_upload_leaves_nothing_and_abort_after_commit_does_nothing(
    store: BlobStore, tmp_path: Path
) -> None:
    writer = store.writer(DIGEST, len(CONTENT))
    await writer.write(CONTENT)
    await writer.abort()
    await writer.abort()
    assert unfinished(tmp_path) == []
    with pytest.raises(InvalidError, match="has ended"):
        await writer.write(b"x")
    with pytest.raises(InvalidError, match="has ended"):
        await writer.commit()
    done = store.writer(DIGEST, len(CONTENT))
    await done.write(CONTENT)
    await done.commit()
    await done.abort()
    assert store.has(DIGEST)


async def test_opening_removes_the_uploads_of_an_earlier_process(store: BlobStore, tmp_path: Path) -> None:
    writer = store.writer(DIGEST, len(CONTENT))
    await writer.write(b"half")
    assert unfinished(tmp_path) != []
    await LocalBlobStore(tmp_path / "blobs").open()
    assert unfinished(tmp_path) == []
    await writer.abort()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "\n", "/" * 64])
async def test_what_is_no_digest_names_nothing(store: BlobStore, digest: str) -> None:
    assert not store.has(digest)
    with pytest.raises(NotFoundError):
        store.path(digest)
    with pytest.raises(InvalidError):
        store.writer(digest, 1)


async def test_a_negative_size_is_refused_and_a_missing_blob_is_not_found(store: BlobStore) -> None:
    with pytest.raises(InvalidError):
        store.writer(DIGEST, -1)
    with pytest.raises(NotFoundError, match="upload it first"):
        store.path(DIGEST)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


async def test_a_full_disk_is_reported_and_the_upload_can_be_aborted(small_disk: Path) -> None:
    store = LocalBlobStore(small_disk)
    await store.open()
    writer = store.writer(DIGEST, 1 << 20)
    with pytest.raises(DiskFull, match="No space is left"):
        await writer.write(bytes(1 << 18))
    await writer.abort()
    assert list((small_disk / "incoming").iterdir()) == []
    assert store.path(await put(store, CONTENT)).read_bytes() == CONTENT
