from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from real_server import RealServer

from modal._objects import client as client_module
from modal._sync import run


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """Settings of the server that a module wants otherwise."""
    return {}


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Iterator[RealServer]:
    """A server for the tests of one module, and a client of this process that talks to it."""
    folder = tmp_path_factory.mktemp("server")
    with RealServer(folder, **settings) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODAL_SERVER_URL", server.url)
        patch.setenv("MODAL_CONFIG_PATH", str(folder / "modal.toml"))
        patch.setenv("MODAL_AUTOMOUNT", "0")
        patch.setattr(client_module, "_default", None)
        yield server
        if client_module._default is not None:
            run(client_module._default._close())
