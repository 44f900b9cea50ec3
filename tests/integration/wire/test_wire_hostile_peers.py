"""Peers that break the protocol, have the wrong version or no right: they are told why, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import stat
import struct

import pytest
import websockets.asyncio.client
import websockets.exceptions
from wire_harness import DOWNLOAD, ECHO, GOOD_TOKEN, Note, Server, until

import modal.exception
from intermodal.control import rpc_peer
from intermodal.control.rpc import Dispatcher, Principal, serve_unix
from modal._wire.client import RpcClient
from modal._wire.frames import FrameDecoder, length_prefixed, pack, unpack

HELLO = {"t": "hello", "protocol": 1, "version": "0.1.0", "session": "se-raw", "token": GOOD_TOKEN}


class RawPeer:
    """Sends any bytes as frames and reads what comes back."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __aenter__(self) -> RawPeer:
        if self._server.carrier == "unix":
            self._reader, self._writer = await asyncio.open_unix_connection(self._server.target[len("unix://") :])
        else:
            url = self._server.target.replace("http", "ws") + "/rpc"
            self._socket = await websockets.asyncio.client.connect(url, proxy=None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server.carrier == "unix":
            self._writer.close()
        else:
            await self._socket.close()

    async def send(self, frame: bytes) -> None:
        if self._server.carrier == "unix":
            self._writer.write(length_prefixed(frame))
        else:
            await self._socket.send(frame)

    async def headers(self) -> list[dict]:
        """Everything the server says until it hangs up."""
        async with asyncio.timeout(5):
            if self._server.carrier == "unix":
                frames = FrameDecoder().feed(await self._reader.read())
            else:
                frames = []
                try:
                    while True:
                        frames.append(await self._socket.recv())
                except websockets.exceptions.ConnectionClosed:
                    pass
        return [unpack(frame)[0] for frame in frames]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\0\0\0\x20garbage", "announces a header"),
        (struct.pack(">I", 8) + b"not json", "not valid JSON"),
        (pack({"t": "reply", "id": 1, "q": {}}), "not allowed when the connection is open"),
        (pack({"t": "item", "id": 99}), "never opened"),
    ],
    ids=["garbage", "no json", "wrong direction", "unknown call"],
)
async def test_a_malformed_frame_ends_its_connection_with_the_reason(server: Server, frame, reason):
    server.dispatcher.register(ECHO, lambda ctx, request, body: request)
    async with server.connected() as client:
        async with RawPeer(server) as peer:
            await peer.send(pack(HELLO))
            await peer.send(frame)
            welcome, error = await peer.headers()
        assert welcome["t"] == "welcome"
        assert error["t"] == "error"
        assert "id" not in error
        assert error["e"]["type"] == "InvalidError"
        assert reason in error["e"]["message"]
        link = client._link
        assert (await client.unary(ECHO, Note("untouched")))[0].text == "untouched"
        assert client._link is link


async def test_an_oversized_frame_ends_its_connection(server: Server):
    async with RawPeer(server) as peer:
        await peer.send(pack(HELLO))
        if server.carrier == "unix":
            peer._writer.write(struct.pack(">I", 2**31))
            _, error = await peer.headers()
            assert error["e"]["type"] == "RequestSizeError"
            assert "A frame of 2147483648 bytes was announced; the limit is 16777216." == error["e"]["message"]
        else:
            await peer.send(bytes(17 * 1024 * 1024))
            await peer.headers()
            assert peer._socket.close_code == 1009


async def test_a_client_of_another_version_is_told_which_side_to_upgrade(server: Server):
    async with RawPeer(server) as peer:
        await peer.send(pack({**HELLO, "protocol": 2}))
        (error,) = await peer.headers()
    assert error["e"]["type"] == "VersionError"
    assert "upgrade Intermodal on the server" in error["e"]["message"]


async def test_our_client_raises_the_version_error_of_a_newer_server(tmp_path):
    async def newer(reader, writer):
        await reader.read(100)
        info = {"type": "VersionError", "message": "Upgrade the client."}
        writer.write(length_prefixed(pack({"t": "error", "e": info})))
        writer.close()

    listener = await asyncio.start_unix_server(newer, tmp_path / "s.sock")
    client = RpcClient(f"unix://{tmp_path}/s.sock", session="se-1")
    with pytest.raises(modal.exception.VersionError, match=r"Upgrade the client\."):
        await client.open()
    await client.close()
    listener.close()


async def test_our_client_ends_calls_of_a_server_that_sends_garbage(tmp_path):
    async def bad(reader, writer):
        writer.write(length_prefixed(pack({"t": "welcome", "protocol": 1, "version": "1"})))
        await reader.read(100)
        await reader.read(100)
        writer.write(b"\xff\xff\xff\xff")
        await reader.read()
        writer.close()

    listener = await asyncio.start_unix_server(bad, tmp_path / "s.sock")
    client = RpcClient(f"unix://{tmp_path}/s.sock", session="se-1")
    await client.open()
    with pytest.raises(modal.exception.Error, match="A frame of 4294967295 bytes was announced"):
        await client.unary(ECHO, Note())
    await client.close()
    listener.close()


async def test_a_peer_that_says_nothing_is_hung_up(server: Server, monkeypatch):
    monkeypatch.setattr(rpc_peer, "HANDSHAKE_TIMEOUT", 0.05)
    async with RawPeer(server) as peer:
        (error,) = await peer.headers()
    assert "No handshake" in error["e"]["message"]


async def test_a_wrong_token_is_an_auth_error(tmp_path):
    server = Server("websocket", tmp_path, Dispatcher())
    await server.start()
    client = server.client(token={"id": "ak-1", "secret": "wrong"})
    with pytest.raises(modal.exception.AuthError, match="The token is not accepted; make a new one"):
        await client.open()
    await client.close()
    await server.stop()


async def test_a_page_in_a_browser_may_not_connect(tmp_path):
    server = Server("websocket", tmp_path, Dispatcher())
    await server.start()
    url = server.target.replace("http", "ws") + "/rpc"
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        await websockets.asyncio.client.connect(url, origin="https://evil.example", proxy=None)
    assert caught.value.response.status_code == 403
    await server.stop()


async def test_an_address_that_is_no_intermodal_server_says_so(tmp_path):
    async def web_server(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(web_server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = RpcClient(f"http://127.0.0.1:{port}", session="se-1", connect_timeout=0)
    with pytest.raises(modal.exception.ConnectionError, match="does not answer as an Intermodal server"):
        await client.open()
    await client.close()
    listener.close()


@pytest.mark.parametrize("target", ["ftp://x", "localhost:80", "http://", "http://host:port"])
async def test_a_target_that_is_no_address_is_an_invalid_error(target):
    client = RpcClient(target, session="se-1")
    with pytest.raises(modal.exception.InvalidError, match="is not the address of a server"):
        await client.open()
    await client.close()


async def test_a_client_that_never_reads_does_not_grow_the_server(tmp_path):
    dispatcher = Dispatcher()
    dispatcher.register(ECHO, lambda ctx, request, body: (request, bytes(1_000_000)))
    server = Server("unix", tmp_path, dispatcher)
    await server.start()
    async with RawPeer(server) as peer:
        await peer.send(pack(HELLO))
        for id in range(1, 2001):  # 2 GB of replies, if all were made
            await peer.send(pack({"t": "open", "id": id, "m": ECHO.name, "q": {}}))
        await until(lambda: any(served.carrier.congested for served in dispatcher._peers))
        (served,) = dispatcher._peers
        assert served.carrier._transport.get_write_buffer_size() < 4_000_000
        assert served.connection.queued == 0
    await until(lambda: not dispatcher._peers)
    await server.stop()


async def test_the_socket_is_for_its_owner_only_and_replaces_only_dead_ones(tmp_path):
    path = tmp_path / "s.sock"
    first = await serve_unix(Dispatcher(), path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        await serve_unix(Dispatcher(), path)
    first.close()
    assert path.exists()
    second = await serve_unix(Dispatcher(), path)
    second.close()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        await serve_unix(Dispatcher(), tmp_path / "file")


async def test_a_connection_can_be_adopted_after_its_first_frame_was_read(tmp_path):
    dispatcher = Dispatcher()
    principal = Principal("container", "co-1", "ap-1")

    async def download(ctx, request, body, stream):
        assert ctx.principal == principal
        await stream.send(Note(ctx.principal.container_id))

    dispatcher.register(DOWNLOAD, download)

    class FirstFrame(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.decoder = transport, FrameDecoder()

        def data_received(self, data):
            for frame in self.decoder.feed(data):
                dispatcher.adopt(lambda token: principal, self.transport, bytes(frame))

    listener = await asyncio.get_running_loop().create_unix_server(FirstFrame, tmp_path / "s.sock")
    client = RpcClient(f"unix://{tmp_path}/s.sock", session="se-1")
    async with client.stream(DOWNLOAD, Note()) as stream:
        assert [item.text async for item, _ in stream] == ["co-1"]
    await client.close()
    listener.close()
    await until(lambda: not dispatcher._peers)
