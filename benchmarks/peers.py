"""The peers, each in an environment of its own below `benchmarks/.peers`, made when it is first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent / ".peers"

#: name -> what is installed
PEERS = {
    "ray": ["ray", "py-spy"],
    "dask": ["dask[distributed]"],
    "modal": ["modal==0.73.60"],
    "redis": ["redis"],
}


def python_of(peer: str) -> str:
    """The path of a Python that has `peer`, which is installed if it is not yet."""
    home = _ROOT / peer
    python, done = home / "bin" / "python", home / ".installed"
    if not done.exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, home], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *PEERS[peer]], check=True)
        done.touch()
    return str(python)


def version_of(peer: str, distribution: str) -> str:
    """The version of a distribution in a peer's environment."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return subprocess.run([python_of(peer), "-c", code], check=True, capture_output=True, text=True).stdout.strip()
