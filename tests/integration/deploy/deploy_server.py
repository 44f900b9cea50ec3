"""A real server process, and users of it: the `modal` command and programs, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from killable_server import KillableServer

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Users:
    """People who work with one server, in one directory."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.server = KillableServer(folder, **{"SESSION_GRACE": "3", **settings})
        self.environ = {
            **self.server.environ,
            "MODAL_SERVER_URL": self.server.target,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def write(self, text: str, name: str = "service.py") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start `modal` with these arguments."""
        return self._popen([sys.executable, "-m", "modal.cli.main", *args], env)

    def start_python(self, code: str, *args: str, **env: str) -> subprocess.Popen[str]:
        return self._popen([sys.executable, "-c", textwrap.dedent(code), *args], env)

    def _popen(self, command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env={**self.environ, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def modal(self, *args: str, fails: int = 0, **env: str) -> str:
        """Run `modal` to its end. Returns what it printed, stderr first."""
        return _end(self.start(*args, **env), fails)

    def deploy(self, text: str, *args: str, fails: int = 0) -> str:
        """Deploy a program that is written to a file first."""
        return self.modal("deploy", str(self.write(text)), *args, fails=fails)

    def python(self, code: str, *args: str) -> Any:
        """Run a program that prints JSON last; returns that."""
        return json.loads(_end(self.start_python(code, *args), 0, only_out=True).splitlines()[-1])

    def apps(self) -> list[dict[str, str]]:
        """The apps that are not stopped."""
        return [one for one in self.listed("app", "list") if one["state"] != "stopped"]

    def listed(self, *args: str) -> Any:
        """What a command with `--json` prints."""
        return json.loads(_end(self.start(*args, "--json"), 0, only_out=True))


def _end(process: subprocess.Popen[str], status: int, only_out: bool = False) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, f"exit {process.returncode}\n{out}\n{err}"
    assert status == 0 or "Traceback" not in err, err
    return out if only_out else err + out
