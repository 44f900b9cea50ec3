from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_server import Executions, KillableServer

import modal
from modal._sync import run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KillableServer]:
    one = KillableServer(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def client(server: KillableServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[modal.Client]:
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "no-such-modal.toml"))
    one = modal.Client(server.target)
    yield one
    run(one._close())


@pytest.fixture
def executions(tmp_path: Path) -> Executions:
    return Executions(tmp_path)
