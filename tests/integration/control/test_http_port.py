"""The HTTP port: health for anyone, RPC only with the token."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from intermodal.daemon import data_directory, running
from intermodal.settings import Settings
from modal._wire.client import RpcClient
from modal._wire.messages.common import Empty
from modal._wire.messages.server import SERVER_INFO
from modal.exception import AuthError, InvalidError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data_dir=tmp_path / "data", port=0, runtime="mock", builder="memory")
    made.run_dir.mkdir(parents=True)
    return made


async def test_the_port_answers_health_checks_and_authenticated_calls(settings: Settings) -> None:
    async with running(settings) as server:
        with await asyncio.to_thread(urllib.request.urlopen, f"{server.url}/healthz") as reply:
            assert json.load(reply) == {"ok": True, "problem": ""}
        token_id, secret = (settings.data_dir / "admin.token").read_text().split()
        client = RpcClient(server.url, session="se-1", token={"id": token_id, "secret": secret})
        await client.open()
        info, _ = await client.unary(SERVER_INFO, Empty())
        assert info.url == server.url
        await client.close()


@pytest.mark.parametrize("token", [None, {"id": "ak-x", "secret": "as-x"}])
async def test_a_wrong_or_missing_token_is_refused(settings: Settings, token: dict[str, str] | None) -> None:
    async with running(settings) as server:
        client = RpcClient(server.url, session="se-1", token=token, reconnect_timeout=0)
        with pytest.raises(AuthError, match="MODAL_TOKEN_ID"):
            await client.open()
        await client.close()


async def test_the_token_and_the_key_are_for_the_server_alone(settings: Settings) -> None:
    async with running(settings):
        for name in ("admin.token", "secret.key"):
            assert (settings.data_dir / name).stat().st_mode & 0o777 == 0o600
        assert settings.socket.stat().st_mode & 0o777 == 0o600


async def test_a_port_in_use_is_one_clear_sentence(settings: Settings, tmp_path: Path) -> None:
    async with running(settings) as server:
        port = int(server.url.rpartition(":")[2])
        other = Settings(data_dir=tmp_path / "other", port=port, runtime="mock", builder="memory")
        other.run_dir.mkdir(parents=True)
        with pytest.raises(InvalidError, match="cannot listen on 127"):
            async with running(other):
                pass


def test_one_data_directory_has_one_server(settings: Settings) -> None:
    with data_directory(settings):
        with pytest.raises(InvalidError, match="Another server"), data_directory(settings):
            pass
    assert not settings.pid_file.exists()
