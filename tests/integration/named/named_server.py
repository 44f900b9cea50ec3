"""A server in the background, with containers as plain processes, and the commands of its users."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


class NamedServer:
    """The server of one data directory. `modal` and `intermodal` run the commands and return their outcome."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        chosen = {"data_dir": str(self.data_dir), "runtime": "mock", "builder": "memory", "port": "-1"}
        chosen |= {"session_grace": "2", "stop_grace": "2", **settings}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "INTERMODAL_"))}
        self.environ = {
            **kept,
            **{f"INTERMODAL_{name.upper()}": value for name, value in chosen.items()},
            "MODAL_CONFIG_PATH": str(folder / "modal.toml"),
        }

    def modal(self, *args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._run("modal.cli.main", args, environ)

    def intermodal(self, *args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._run("intermodal.cli", args, environ)

    def program(self, text: str, name: str = "app.py") -> Path:
        """Write a program of the user's."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path

    def _run(self, module: str, args: tuple[object, ...], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, args)],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed that must have succeeded."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def failed(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """It failed with one sentence that has these words."""
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"
