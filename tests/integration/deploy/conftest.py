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


@pytest.fixture(scope="module")
def _users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """A server, and a client of this process that talks to it."""
    one = Users(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODAL_SERVER_URL", one.server.target)
        patch.setenv("MODAL_CONFIG_PATH", str(one.folder / "no-such-modal.toml"))
        patch.setenv("MODAL_AUTOMOUNT", "0")
        patch.setattr(client_module, "_default", None)
        one.server.start()
        yield one
        if client_module._default is not None:
            run(client_module._default._close())
    one.server.stop()


@pytest.fixture
def users(_users: Users, tmp_path: Path) -> Iterator[Users]:
    """The server of the module, on which no app runs yet."""
    _users.folder = tmp_path
    yield _users
    for app in _users.apps():
        _users.modal("app", "stop", app["app_id"])


@pytest.fixture
def image() -> modal.Image:
    return modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.fixture
def executions_of(tmp_path: Path) -> Executions:
    """Counts what ran."""
    return Executions(tmp_path)
