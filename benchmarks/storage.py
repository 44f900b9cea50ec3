"""Dicts and queues beside Redis on loopback, through redis-py, with the same pickled values.

Redis keeps nothing on disk here: what it is compared with is safe over a kill when the call returns.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from peers import python_of
from results import Row, times
from server import HERE, Server

_ROUNDS = 5
_OPERATIONS = 1_500  # a round
_BATCHES = 100  # of 100 entries or items, a round
_LATENCY_BUDGET = 2.0


def measure(server: Server) -> list[Row]:
    """Latencies of single operations, and rates of batches."""
    latencies: dict[str, dict[str, list[float]]] = {"ours": {}, "redis": {}}
    with _redis() as port:
        commands = {
            "ours": [sys.executable, str(HERE / "storage_contender.py"), "intermodal"],
            "redis": [python_of("redis"), str(HERE / "storage_contender.py"), "redis", str(port)],
        }
        for _ in range(_ROUNDS):
            for name, command in commands.items():
                done = subprocess.run(
                    [*command, str(_OPERATIONS), str(_BATCHES)],
                    env=server.env,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for what, value in json.loads(done.stdout).items():
                    latencies[name].setdefault(what, []).append(value)
    ours = {what: statistics.median(values) for what, values in latencies["ours"].items()}
    redis = {what: statistics.median(values) for what, values in latencies["redis"].items()}
    return [_row(what, ours[what], redis[what]) for what in ours]


def _row(what: str, ours: float, redis: float) -> Row:
    if what.endswith("/s"):
        return Row(what[:-2].rstrip(), f"{ours:,.0f}/s", f"Redis: {redis:,.0f}/s", times(ours / redis))
    ratio = ours / redis
    met = ratio <= _LATENCY_BUDGET
    return Row(f"{what}, p50", f"{ours * 1e6:.0f} µs", f"Redis: {redis * 1e6:.0f} µs", times(ratio), times(2, "≤"), met)


@contextlib.contextmanager
def _redis() -> Iterator[int]:
    """Debian's redis-server; gives its port."""
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([*map(str, command), "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port)).close())
            yield port
        finally:
            process.terminate()
            process.wait()


def _until(attempt: Callable[[], object], seconds: float = 10.0) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            attempt()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
