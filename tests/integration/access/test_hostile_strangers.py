"""Strangers at the port who send garbage, too much, or too slowly: they get nothing, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_server import AccessServer, access_server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from intermodal.control import http_protocol, rpc_peer
from modal._wire.frames import pack, unpack
from modal._wire.messages.blob import BLOB_PUT, BlobPut
from modal._wire.messages.common import Empty
from modal._wire.messages.server import SERVER_INFO

HELLO = {"t": "hello", "protocol": 1, "version": "0", "session": "se-x", "token": None}


@pytest.fixture
async def port(server: AccessServer) -> AsyncIterator[int]:
    """The port; afterwards the server serves as before."""
    yield int(server.url.rpartition(":")[2])
    token = await server.make_token()
    async with server.client(server.url, token=token) as client:
        await client.unary(SERVER_INFO, Empty())


async def answer_to(port: int, *parts: bytes) -> bytes:
    """Everything that the server says until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                received += data
    writer.close()
    return received


@contextlib.asynccontextmanager
async def stranger(port: int) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}/rpc", compression=None) as socket:
        yield socket


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET /\x00\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tfolded\x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    ],
    ids=lambda request: ascii(request[:24]),
)
async def test_what_is_no_http_is_refused(port: int, request_: bytes) -> None:
    received = await answer_to(port, request_)
    assert received == b"" or received.split(b" ")[1] in (b"400", b"431", b"501")


async def test_a_second_request_hidden_in_a_body_is_not_answered(port: int) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    received = await answer_to(port, request % (5 + len(hidden)) + hidden)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("value", [b"caf\xe9", b"\xf0\x9f\x98\x80", b"\xff" * 50])
async def test_headers_that_are_not_ascii_do_no_harm(port: int, value: bytes) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: " + value + b"\r\nConnection: close\r\n\r\n"
    assert (await answer_to(port, request)).split(b" ")[1] in (b"200", b"400")
    upgrade = (
        b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + value + b"\r\n\r\n"
    )
    assert b" 101 " not in (await answer_to(port, upgrade)).split(b"\r\n")[0]


async def test_a_page_in_a_browser_cannot_connect(port: int) -> None:
    with pytest.raises(InvalidStatus):
        async with connect(f"ws://127.0.0.1:{port}/rpc", origin="https://evil.example"):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_request_that_does_not_arrive_is_cut_off(
    port: int, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_TIMEOUT", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)

    async def dribble() -> None:
        with contextlib.suppress(ConnectionError):
            while start:
                writer.write(b"y")
                await writer.drain()
                await asyncio.sleep(0.02)

    dribbling = asyncio.create_task(dribble())
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    dribbling.cancel()
    writer.close()


async def test_the_second_request_of_a_connection_has_no_more_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"}")
    monkeypatch.setattr(http_protocol, "REQUEST_TIMEOUT", 0.3)
    writer.write(b"GET /healthz HT")
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("dribbles", [False, True])
async def test_a_connection_without_a_handshake_is_cut_off(
    port: int, dribbles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_peer, "HANDSHAKE_TIMEOUT", 0.3)
    async with stranger(port) as socket:

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(socket.send(endless())) if dribbles else None
        async with asyncio.timeout(20):
            answer, _ = unpack(await socket.recv())
            assert "No handshake arrived" in answer["e"]["message"]
            await socket.wait_closed()
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("kind", ["silent", "websocket"])
async def test_a_crowd_of_strangers_pushes_itself_out_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_STRANGERS", 5)
    async with access_server(tmp_path, monkeypatch) as server, contextlib.AsyncExitStack() as crowd:
        port, token = int(server.url.rpartition(":")[2]), await server.make_token()
        async with server.client(server.url, token=token) as early:
            readers, sockets = [], []
            for _ in range(20):
                if kind == "silent":
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    crowd.callback(writer.close)
                    readers.append(reader)
                else:
                    sockets.append(await crowd.enter_async_context(stranger(port)))
            async with asyncio.timeout(20):
                for reader in readers[:15]:
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                for socket in sockets[:15]:
                    await socket.wait_closed()
            assert not any(reader.at_eof() for reader in readers[16:])
            async with server.client(server.url, token=token) as late:
                for client in (early, late):
                    await client.unary(SERVER_INFO, Empty())


async def test_before_the_handshake_messages_are_small(port: int) -> None:
    async with stranger(port) as socket:
        with contextlib.suppress(ConnectionClosed):  # it may be cut off before everything is sent
            await socket.send(pack({**HELLO, "token": {"id": "ak-x", "secret": "y" * 500_000}}))
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_after_the_handshake_they_may_be_large(server: AccessServer) -> None:
    data = bytes(8 * 1024 * 1024)
    async with server.client(server.url, token=await server.make_token()) as client:
        async with client.stream(BLOB_PUT, BlobPut("0" * 64, len(data))) as stream:
            await stream.send(Empty(), data)
        await client.unary(SERVER_INFO, Empty())


@pytest.mark.parametrize(
    "token",
    [None, 5, "ak", [], {"id": {}}, {"id": "\U0001f600", "secret": "\u0000"}, {"id": "a" * 30_000}],
    ids=lambda token: ascii(token)[:20],
)
async def test_a_strange_token_is_refused_in_order(port: int, token: object) -> None:
    async with stranger(port) as socket:
        await socket.send(pack({**HELLO, "token": token}))
        answer, _ = unpack(await socket.recv())
        assert (answer["t"], answer["e"]["type"]) in (("error", "AuthError"), ("error", "InvalidError"))
        assert len(answer["e"]["message"]) < 400
        with pytest.raises(ConnectionClosed):
            await socket.recv()
