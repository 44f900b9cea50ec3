"""What a program sees of access: `modal.Client`, the errors, and what it logs."""

from __future__ import annotations

import asyncio
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from access_server import AccessServer, make_app

import modal
from modal._serialization import deserialize, serialize
from modal._wire.messages.app import APP_PUBLISH, AppPublish
from modal._wire.messages.call import CALL_RUN, CallRun, Input
from modal._wire.messages.function import FUNCTION_CREATE, FunctionCreate, FunctionSpec, Source, SourceKind
from modal._wire.messages.token import Role
from modal.exception import AuthError, InvalidError


async def run_program(code: str, config: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        env={"MODAL_CONFIG_PATH": str(config), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


ASK = "import modal; from modal.cli.request import ask; from modal._wire.messages.app import *; "


async def test_a_client_from_credentials_acts_for_their_owner(
    server: AccessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await server.make_token()
    for target in (server.url, f"unix://{server.settings.socket}"):
        monkeypatch.setenv("MODAL_SERVER_URL", target)
        client = modal.Client.from_credentials(token["id"], token["secret"])
        assert await asyncio.to_thread(client.hello) is None
        assert client.is_closed() is False
        await asyncio.to_thread(modal._sync.run, client._close())
        assert client.is_closed() is True
        with pytest.raises(AuthError, match="is not accepted"):
            await asyncio.to_thread(modal.Client.from_credentials("ak-x", "as-x").hello)
    with pytest.raises(InvalidError):
        modal.Client.from_credentials("ak-x", "")


async def test_code_in_a_container_can_act_for_the_owner_of_a_token_it_was_given(server: AccessServer) -> None:
    def act_as(token_id: str, secret: str) -> str:
        import modal

        try:
            modal.Client.from_credentials(token_id, secret).hello()
        except modal.exception.AuthError as error:
            return str(error)
        return "accepted"

    async with server.client() as owner:
        ids = await make_app(owner)
        python = ".".join(platform.python_version_tuple()[:2])
        source = Source(SourceKind.SERIALIZED, qualname=act_as.__qualname__, python=python)
        spec = FunctionSpec("act_as", source, ids["image_id"])
        made, _ = await owner.unary(FUNCTION_CREATE, FunctionCreate(ids["app_id"], spec), serialize(act_as))
        await owner.unary(APP_PUBLISH, AppPublish(ids["app_id"], {"act_as": made.function_id}))

        async def call(*args: str) -> Any:
            payload = serialize((args, {}))
            request = CallRun(made.function_id, Input(0, len(payload)))
            return deserialize((await owner.unary(CALL_RUN, request, payload, timeout=60))[1])

        token = await server.make_token(Role.READ_ONLY)
        assert await call(token["id"], token["secret"]) == "accepted"
        assert "is not accepted" in await call(token["id"], "as-x")


async def test_a_token_for_elsewhere_does_not_matter_to_the_local_server(server: AccessServer, tmp_path: Path) -> None:
    (tmp_path / "modal.toml").write_text('[default]\ntoken_id = "ak-theirs"\ntoken_secret = "as-theirs"\n')
    target = f"unix://{server.settings.socket}"
    code = ASK + "print(ask(APP_OBJECTS, AppRef('ap-x')))"
    done = await run_program(code, tmp_path / "modal.toml", MODAL_SERVER_URL=target)
    assert "NotFoundError" in done.stderr


async def test_half_a_token_names_the_missing_half(server: AccessServer, tmp_path: Path) -> None:
    (tmp_path / "modal.toml").write_text('[default]\ntoken_id = "ak-1"\n')
    code = ASK + "ask(APP_OBJECTS, AppRef('ap-x'))"
    done = await run_program(code, tmp_path / "modal.toml", MODAL_SERVER_URL=server.url)
    assert "AuthError: token_id is set but token_secret is not. Set MODAL_TOKEN_SECRET" in done.stderr


async def test_an_address_where_nobody_listens_fails_soon_with_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(modal.exception.ConnectionError) as error:
        await asyncio.to_thread(modal.Client(url).hello)
    # Tries are made for a second; ten times that is for a machine that is busy with other things.
    assert time.monotonic() - began < 10
    assert str(error.value) == (
        f"Cannot connect to the server at {url}: connection refused. "
        "Check that it is running and that the address is right."
    )


async def test_debug_shows_connection_and_requests_but_no_secret(server: AccessServer, tmp_path: Path) -> None:
    token = await server.make_token()
    code = ASK + "ask(APP_OBJECTS, AppRef('ap-x'))"
    environ = {"MODAL_SERVER_URL": server.url, "MODAL_TOKEN_ID": token["id"], "MODAL_TOKEN_SECRET": token["secret"]}
    quiet = await run_program(code, tmp_path / "none.toml", **environ)
    assert "DEBUG" not in quiet.stderr
    done = await run_program(code, tmp_path / "none.toml", MODAL_LOGLEVEL="debug", **environ)
    assert f"DEBUG modal.rpc: connected to {server.url} in " in done.stderr
    assert "DEBUG modal.rpc: app.objects (0 bytes) took " in done.stderr
    assert "NotFoundError: There is no" in done.stderr
    assert token["id"] in done.stderr
    assert token["secret"] not in done.stderr


async def test_the_program_s_own_logging_gets_what_the_client_logs(server: AccessServer, tmp_path: Path) -> None:
    code = "import logging; logging.basicConfig(format='mine: %(message)s')\n" + ASK
    code += "\ntry:\n    ask(APP_OBJECTS, AppRef('ap-x'))\nexcept modal.exception.NotFoundError: pass"
    target = f"unix://{server.settings.socket}"
    done = await run_program(code, tmp_path / "none.toml", MODAL_LOGLEVEL="DEBUG", MODAL_SERVER_URL=target)
    assert f"mine: connected to {target}" in done.stderr
    assert all(line.startswith("mine: ") for line in done.stderr.splitlines())
