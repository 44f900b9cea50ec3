"""A program that acts for somebody else: every part of it uses the client that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_server import RealServer

import modal
from modal._objects import client as client_module
from modal._sync import run
from modal._wire.messages.token import TOKEN_CREATE, Role, TokenCreate


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[modal.Client]:
    """A client of a member, and a configuration that leads nowhere."""
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.setattr(client_module, "_default", None)

    async def ask(method: Any, request: Any) -> Any:
        return (await (await local._rpc()).unary(method, request))[0]

    with RealServer(tmp_path, port=0) as server:
        local = modal.Client(server.url)
        token = run(ask(TOKEN_CREATE, TokenCreate("ann", Role.MEMBER)))
        url = run(local._info()).url
        run(local._close())
        monkeypatch.setenv("MODAL_SERVER_URL", url)
        made = modal.Client.from_credentials(token.token_id, token.token_secret)
        made.hello()
        monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
        yield made
        run(made._close())
        assert client_module._default is None, "something used the configured client"


def test_an_app_runs_with_its_client_alone(client: modal.Client) -> None:
    app = modal.App("theirs")

    @app.function(serialized=True, secrets=[modal.Secret.from_dict({"WHO": "ann"})])
    def work(x: int) -> str:
        import os

        return f"{os.environ['WHO']} {x}"

    with app.run(client=client):
        assert work.remote(1) == "ann 1"
        assert sorted(work.map(range(3))) == ["ann 0", "ann 1", "ann 2"]
        call = work.spawn(2)
        assert call.get(timeout=60) == "ann 2"
        assert modal.FunctionCall.from_id(call.object_id, client=client).get(timeout=60) == "ann 2"


def test_deployed_functions_and_named_objects_are_found_with_it(client: modal.Client) -> None:
    app = modal.App("served")

    @app.function(serialized=True)
    def double(x: int) -> int:
        return 2 * x

    modal.runner.deploy_app(app, client=client)
    assert modal.Function.lookup("served", "double", client=client).remote(21) == 42
    values = modal.Dict.lookup("values", client=client, create_if_missing=True)
    values["a"] = 1
    assert modal.Dict.lookup("values", client=client)["a"] == 1
