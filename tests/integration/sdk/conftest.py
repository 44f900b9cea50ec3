from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_server import SdkServer

from modal._objects import client as client_module
from modal._sync import run


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SdkServer]:
    """A server, and a client of this process that talks to it."""
    monkeypatch.setenv("MODAL_SERVER_URL", f"unix://{tmp_path}/server.sock")
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    with SdkServer(tmp_path / "server.sock") as one:
        monkeypatch.setattr(client_module, "_default", None)
        yield one
        if client_module._default is not None:
            run(client_module._default._close())
