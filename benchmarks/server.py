"""A server of our own for the benchmarks, with real runc and buildah, on a data directory that goes away with it.

With BENCHMARK_PROFILE=FILE in the environment it runs under cProfile, which writes its statistics there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_START_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Server:
    data_dir: Path
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """The environment of clients of this server."""
        return server_env(self.data_dir)

    def memory(self) -> int:
        """Bytes of memory that the server alone holds."""
        return unshared(self.pid)


def server_env(data_dir: Path) -> dict[str, str]:
    return {**os.environ, "INTERMODAL_DATA_DIR": str(data_dir), "INTERMODAL_PORT": "-1"}


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server; stop it and remove its data at the end. Its own log goes to our stderr if it fails."""
    data_dir = Path(tempfile.mkdtemp(prefix="intermodal-bench-"))
    env, log = server_env(data_dir), data_dir / "bench.log"
    profile = os.environ.get("BENCHMARK_PROFILE")
    profiler = ["-m", "cProfile", "-o", profile] if profile else []
    with open(log, "w") as out:
        command = [sys.executable, *profiler, "-m", "intermodal.cli", "serve"]
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        give_up = time.monotonic() + _START_TIMEOUT
        while not (data_dir / "run" / "server.sock").exists():
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"The server did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(data_dir, process.pid)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(data_dir)


def unshared(pid: int) -> int:
    """Bytes of memory that no other process shares with this one."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            total += int(line.split()[1]) * 1024
    return total
