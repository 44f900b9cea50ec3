"""What a user waits for before anything runs: the import, and `modal run` of a first program."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers import python_of
from results import Row, interleave, ms, times
from server import HERE, Server

_ROUNDS = 15


def measure_import() -> list[Row]:
    """Whole processes, less one that imports nothing."""
    ours, theirs = sys.executable, python_of("modal")
    median = interleave(
        _ROUNDS,
        {
            "ours": _process([ours, "-c", "import modal"]),
            "our bare": _process([ours, "-c", "pass"]),
            "theirs": _process([theirs, "-c", "import modal"]),
            "their bare": _process([theirs, "-c", "pass"]),
        },
    )
    mine, other = median["ours"] - median["our bare"], median["theirs"] - median["their bare"]
    what, peer, ratio = "`import modal`", f"PyPI modal 0.73.60: {ms(other)}", mine / other
    return [
        Row(what, ms(mine), "", "", "≤ 100 ms", mine <= 0.1),
        Row(what, ms(mine), peer, times(ratio), times(0.1, "≤"), ratio <= 0.1),
    ]


def measure_run(server: Server) -> list[Row]:
    """`modal run` from its start to its end, server warm and image cached; the hello world of the examples."""
    command = [str(Path(sys.executable).with_name("modal")), "run", str(HERE.parent / "examples" / "hello.py")]
    run = _process([*command, "--count", "10"], server.env)
    run()
    seconds = interleave(_ROUNDS, {"run": run})["run"]
    return [Row("`modal run` of hello world, to the prompt", ms(seconds), "", "", "≤ 1.0 s", seconds <= 1.0)]


def _process(command: list[str], env: dict[str, str] | None = None) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        return seconds

    return run
