"""The HTTP port: it listens, says how the server is, and says clearly why it cannot."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest

from intermodal.daemon import data_directory, running
from intermodal.settings import Settings
from modal.exception import InvalidError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(data_dir=tmp_path / "data", port=0, runtime="mock", builder="memory")
    made.run_dir.mkdir(parents=True)
    return made


async def test_the_port_answers_health_checks_without_a_token(settings: Settings) -> None:
    async with running(settings) as server:
        with await asyncio.to_thread(urllib.request.urlopen, f"{server.url}/healthz") as reply:
            assert json.load(reply) == {"ok": True}


async def test_the_key_and_the_socket_are_for_the_server_alone(settings: Settings) -> None:
    async with running(settings):
        assert (settings.data_dir / "secret.key").stat().st_mode & 0o777 == 0o600
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
