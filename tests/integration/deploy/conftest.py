from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modal
from modal._objects import client as client_module
from modal._sync import run

sys.path.append(str(Path(__file__).parents[1] / "durability"))  # the server that can be killed

from deploy_server import Users
from killable_server import Executions


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    """A server, and a client of this process that talks to it."""
    one = Users(tmp_path)
    monkeypatch.setenv("MODAL_SERVER_URL", one.server.target)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "no-such-modal.toml"))
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    monkeypatch.setattr(client_module, "_default", None)
    one.server.start()
    yield one
    if client_module._default is not None:
        run(client_module._default._close())
    one.server.stop()


@pytest.fixture
def image() -> modal.Image:
    return modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.fixture
def executions_of(tmp_path: Path) -> Executions:
    """Counts what ran."""
    return Executions(tmp_path)
