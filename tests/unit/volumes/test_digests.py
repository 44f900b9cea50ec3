from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intermodal.volumes import digests
from intermodal.volumes.digests import digest_of

CHUNK = 4096


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK", CHUNK)
    monkeypatch.setattr(digests, "_zero_digests", {})


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 300 * CHUNK + 5])
def test_a_pool_changes_no_digest(size: int, tmp_path: Path) -> None:
    dense, sparse, zeros = (tmp_path / name for name in ("dense", "sparse", "zeros"))
    dense.write_bytes(os.urandom(size))
    zeros.write_bytes(bytes(size))
    with open(sparse, "wb") as file:
        file.truncate(size)
    with ThreadPoolExecutor(3) as pool:
        for path in (dense, sparse, zeros):
            assert digest_of(path, pool) == digest_of(path)
    assert digest_of(sparse) == digest_of(zeros)


def test_a_file_that_cannot_be_read_leaves_no_work_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(50 * CHUNK))
    real, running = digests._chunk, []

    def chunk(job: tuple[int, int, int, bool]) -> bytes:
        if job[1] == CHUNK:
            raise OSError(errno.EIO, "broken")
        running.append(job)
        try:
            return real(job)
        finally:
            running.remove(job)

    monkeypatch.setattr(digests, "_chunk", chunk)
    with ThreadPoolExecutor(3) as pool:
        with pytest.raises(OSError, match="broken"):
            digest_of(path, pool)
        assert running == []
