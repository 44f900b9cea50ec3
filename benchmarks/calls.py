"""Warm calls and maps, beside Ray, Dask and `ProcessPoolExecutor`.

Contenders take turns, each alone on the machine while it is measured: Ray's processes cost something when idle.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from peers import PEERS, python_of
from results import Row, ms, times
from server import HERE, Server

_ROUNDS = 3
_CALLS = 2_000
_INPUTS = 10_000
_MAPS = 3  # a round; one for Dask, which takes long


class Process:
    """A running contender (see contender.py)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def ask(self, command: str, n: int) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {n}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A contender ended early; its error is above.")
        return json.loads(line)


@contextlib.contextmanager
def contender(server: Server, name: str) -> Iterator[Process]:
    """Start a contender, warm; it has ended when the block is left."""
    python = python_of(name) if name in PEERS else sys.executable
    command = [python, str(HERE / "contender.py"), name]
    env = {**server.env, "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Process(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def measure(server: Server) -> list[Row]:
    """The rows of warm calls and of maps."""
    names = ("intermodal", "ray", "dask", "pool")
    calls: dict[str, list[float]] = {name: [] for name in names}
    maps: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_ROUNDS):
        for name in names:
            with contender(server, name) as process:
                calls[name].append(statistics.median(process.ask("call", _CALLS)))
                times_of_maps = [process.ask("map", _INPUTS) for _ in range(1 if name == "dask" else _MAPS)]
                maps[name] += [_INPUTS / seconds for seconds in times_of_maps]
    call = {name: statistics.median(values) for name, values in calls.items()}
    rate = {name: statistics.median(values) for name, values in maps.items()}
    return [
        _call_row("Ray actor call", call["intermodal"], call["ray"], 0.5),
        _call_row("Dask submit().result()", call["intermodal"], call["dask"]),
        _call_row("ProcessPoolExecutor.submit().result()", call["intermodal"], call["pool"], 4.0),
        _map_row("Ray tasks", rate["intermodal"], rate["ray"], 10.0),
        _map_row("Dask map", rate["intermodal"], rate["dask"]),
        _map_row("ProcessPoolExecutor.map, chunksize 1", rate["intermodal"], rate["pool"], 2.0),
    ]


def _call_row(peer: str, ours: float, theirs: float, most: float | None = None) -> Row:
    ratio = ours / theirs
    budget, met = ("", None) if most is None else (times(most, "≤"), ratio <= most)
    return Row("warm `.remote()`, p50", ms(ours), f"{peer}: {ms(theirs)}", times(ratio), budget, met)


def _map_row(peer: str, ours: float, theirs: float, least: float | None = None) -> Row:
    ratio = ours / theirs
    budget, met = ("", None) if least is None else (times(least, "≥"), ratio >= least)
    return Row(
        f"`.map` of {_INPUTS:,} trivial inputs",
        f"{ours:,.0f}/s",
        f"{peer}: {theirs:,.0f}/s",
        times(ratio),
        budget,
        met,
    )
