"""The volume benchmark's work, in a container on a volume, and on the file system below by `here`.

Times are in seconds, and end when what was written is durable: with the commit, or with fsync.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import modal

BIG = 1024**3  #: bytes
SMALL = 10_000  #: files of 1 KiB
_BLOCK = os.urandom(1024 * 1024)

app = modal.App("volume-benchmark")
volume = modal.Volume.from_name("benchmark", create_if_missing=True)


@app.function(volumes={"/data": volume}, timeout=600)
def measure() -> dict[str, float]:
    return work(Path("/data"), volume.commit)


def here(folder: Path) -> dict[str, float]:
    """The same on the file system of a directory of this machine."""
    return work(folder, lambda: os.sync())


def work(root: Path, make_durable: Callable[[], object]) -> dict[str, float]:
    """Write and read a large file, then many small ones; leaves nothing."""
    figures = {}
    started = time.perf_counter()
    with open(root / "big", "wb") as file:
        for _ in range(BIG // len(_BLOCK)):
            file.write(_BLOCK)
    make_durable()
    figures["write big"] = time.perf_counter() - started
    figures["read big"] = min(_read(root / "big") for _ in range(3))
    (root / "small").mkdir()
    started = time.perf_counter()
    for number in range(SMALL):
        (root / "small" / str(number)).write_bytes(_BLOCK[:1024])
    make_durable()
    figures["write small"] = time.perf_counter() - started
    started = time.perf_counter()
    for number in range(SMALL):
        (root / "small" / str(number)).read_bytes()
    figures["read small"] = time.perf_counter() - started
    shutil.rmtree(root / "small")
    (root / "big").unlink()
    make_durable()
    return figures


def _read(path: Path) -> float:
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(len(_BLOCK)):
            continue
    return time.perf_counter() - started
