"""Each setting does what docs/configuration.md says, from the environment and from the file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sdk_server import SdkServer

import modal

PROGRAM = """
import modal, helper_module

app = modal.App("program")

@app.function()
def work():
    return helper_module.VALUE

if __name__ == "__main__":
    with app.run():
        pass
"""


def run_program(folder: Path, server: SdkServer, setting: str, value: str, *, in_file: bool) -> None:
    """Run a program that uses a local module, with one setting."""
    (folder / "helper_module.py").write_text("VALUE = 1\n")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "set.toml").write_text(f"[default]\n{setting} = {value}\n" if in_file else "")
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MODAL_")}
    environ |= {"MODAL_SERVER_URL": f"unix://{server.path}", "MODAL_CONFIG_PATH": str(folder / "set.toml")}
    if not in_file:
        environ[f"MODAL_{setting.upper()}"] = value
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("value", ["true", "false"])
def test_automount(server: SdkServer, tmp_path: Path, value: str, in_file: bool) -> None:
    run_program(tmp_path, server, "automount", value, in_file=in_file)
    assert any(path.endswith("/helper_module.py") for path in server.mounted) == (value == "true")


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("value", ["true", "false"])
def test_force_build(server: SdkServer, tmp_path: Path, value: str, in_file: bool) -> None:
    run_program(tmp_path, server, "force_build", value, in_file=in_file)
    assert [spec.force_build for spec in server.images] == [value == "true"]


def test_logs_timeout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app whose last output never comes is not waited for longer."""

    async def silent(self: SdkServer, ctx: Any, request: Any, body: bytes, stream: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(SdkServer, "app_events", silent)
    request.getfixturevalue("server")
    monkeypatch.setenv("MODAL_LOGS_TIMEOUT", "0.1")
    began = time.monotonic()
    with modal.App("silent").run():
        pass
    assert time.monotonic() - began < 9  # by default it would be 10 seconds
