"""Measures the budgets of the design against peers, in one run on one machine, and prints a table in Markdown.

    .venv/bin/python benchmarks/run.py [--only NAME ...] [--deepest 100000] [--json FILE]

Needs root, runc and buildah. Peers are installed below `benchmarks/.peers` the first time. Medians everywhere; see
each module for what is measured how.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import calls
import containers
import images
import machine
import queue_depth
import starts
import storage
import volumes
from results import Row, as_json, table
from server import HERE, Server, running

#: Benchmarks that give rows of the table, in its order; they need a server.
BENCHMARKS: dict[str, Callable[[Server, argparse.Namespace], list[Row]]] = {
    "import": lambda server, options: starts.measure_import(),
    "run": lambda server, options: starts.measure_run(server),
    "calls": lambda server, options: calls.measure(server),
    "containers": lambda server, options: containers.measure(server),
    "images": lambda server, options: images.measure(server),
    "volumes": lambda server, options: volumes.measure(server),
    "storage": lambda server, options: storage.measure(server),
    "queue": lambda server, options: queue_depth.measure(server, options.deepest),
}
#: Scripts with a table of their own.
SCRIPTS = {"wire": "wire.py", "bridge": "sync_bridge.py"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*BENCHMARKS, *SCRIPTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--deepest", type=int, default=1_000_000, help="most queued inputs to measure")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("containers need root")
    facts = machine.describe()
    facts["load average before"] = f"{machine.load_average():.2f}"
    rows = _measure(options)
    texts = {
        name: subprocess.run(
            [sys.executable, str(HERE / script)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        for name, script in SCRIPTS.items()
        if name in options.only
    }
    facts["load average after"] = f"{machine.load_average():.2f}"
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    if rows:
        print("\n" + table(rows))
    for text in texts.values():
        print("\n" + text)
    if options.json:
        document = {"machine": facts, "rows": as_json(rows), "texts": texts}
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _measure(options: argparse.Namespace) -> list[Row]:
    wanted = [name for name in BENCHMARKS if name in options.only]
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        if not wanted:
            return rows
        server = stack.enter_context(running())
        os.environ.update(server.env)  # for what runs in this process
        for name in wanted:
            print(f"measuring {name}", file=sys.stderr)
            rows += BENCHMARKS[name](server, options)
    return rows


if __name__ == "__main__":
    main()
