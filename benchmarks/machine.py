"""What the numbers were measured on, in general terms: no host name, no paths."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from peers import version_of


def describe() -> dict[str, str]:
    """Facts about the machine and the programs compared, by name."""
    return {
        "CPU": f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "runc": _output("runc", "--version").split()[2],
        "buildah": _output("buildah", "--version").split()[2],
        "Ray": version_of("ray", "ray"),
        "Dask": version_of("dask", "distributed"),
    }


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
