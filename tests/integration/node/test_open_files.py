"""What is asked of file systems to find out which files of another one are open: nothing."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intermodal.node.open_files import uses_of
from intermodal.runtimes.syscalls import mount, unmount

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE")

_INIT, _ACCESS = 26, 34


def answer(device: int, wanted: int, error: int, body: bytes = b"") -> None:
    request = os.read(device, 1 << 17)
    _, operation, unique = struct.unpack_from("=IIQ", request)
    assert operation == wanted
    os.write(device, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[int]:
    """A process that works in a directory of a file system which answers nothing any more."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    point = tmp_path / "bucket"
    point.mkdir()
    mount("fuse", point, "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
    program = f"import os, sys; os.chdir({str(point)!r}); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        answer(device, _INIT, 0, struct.pack("=IIIIHHIIHH8I", 7, 31, 4096, 0, 0, 0, 4096, 1, 1, 0, *[0] * 8))
        answer(device, _ACCESS, errno.ENOSYS)
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid
    finally:
        os.close(device)  # which ends all waiting for it
        process.communicate()
        unmount(point)


def test_a_file_system_that_hangs_does_not_keep_the_answer_waiting(hanging: int, tmp_path: Path) -> None:
    mount("tmpfs", tmp_path, "tmpfs")
    pool = ThreadPoolExecutor(1)
    try:
        with (tmp_path / "file").open("w") as file:
            uses = pool.submit(uses_of, hanging, tmp_path.stat().st_dev, "/name").result(10)
            assert [use.name for use in uses if use.writes] == [file.name]
    finally:
        pool.shutdown(wait=False)  # if it waits, it does until the file system is gone
        unmount(tmp_path)
