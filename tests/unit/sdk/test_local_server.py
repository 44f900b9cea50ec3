"""Finding and starting the local server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from modal import _local_server
from modal._local_server import ensure_local_server, local_socket
from modal.exception import ConnectionError

LISTEN = """
import os, socket, sys
path = sys.argv[1]
os.makedirs(os.path.dirname(path), exist_ok=True)
if os.fork() == 0:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.close(0), os.close(1), os.close(2)
    listener.settimeout(30)
    listener.accept()
    os._exit(0)
while not os.path.exists(path):
    pass
"""


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERMODAL_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_socket_is_in_the_data_directory(data_dir: Path) -> None:
    assert local_socket() == data_dir / "run" / "server.sock"


async def test_a_server_that_answers_is_used(data_dir: Path) -> None:
    local_socket().parent.mkdir(parents=True)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(greet, str(local_socket()))
    async with server:
        assert await ensure_local_server() == f"unix://{local_socket()}"


async def test_a_server_is_started_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_local_server, "_command", lambda: [sys.executable, "-c", LISTEN, str(local_socket())])
    assert await ensure_local_server() == f"unix://{local_socket()}"
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "intermodal down" in err


async def test_a_start_that_fails_gives_the_reason_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.exit('Error: runc is not installed. Run: apt install runc')"
    monkeypatch.setattr(_local_server, "_command", lambda: [sys.executable, "-c", code])
    with pytest.raises(ConnectionError, match=r"could not be started: runc is not installed\. Run: apt"):
        await ensure_local_server()


async def test_a_start_that_gives_no_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_local_server, "_command", lambda: [sys.executable, "-c", ""])
    with pytest.raises(ConnectionError, match="does not listen"):
        await ensure_local_server()
