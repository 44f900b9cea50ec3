"""A reader that is slow or stops holds the sender, in both directions and over both carriers."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from wire_harness import DOWNLOAD, UPLOAD, Note, Server

CHUNK = bytes(1024 * 1024)
CHUNKS = 1024  # 1 GiB in all
#: Frames under way: the credit window and one over it, the carrier's buffers and the kernel's.
AHEAD = 12
GROWTH = 64 * 1024 * 1024


class Watch:
    """Counts chunks on both sides and takes the highest memory use of this process, which holds both."""

    def __init__(self) -> None:
        self.sent = 0
        self.read = 0
        self.most_ahead = 0
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.growth = 0

    def look(self) -> None:
        self.most_ahead = max(self.most_ahead, self.sent - self.read)
        self.growth = max(self.growth, self._process.memory_info().rss - self._before)


async def read_slowly(stream, watch: Watch) -> None:
    """Let the sender go as far as it gets before each of the first chunks, then read on at full speed."""
    async for _, body in stream:
        assert len(body) == len(CHUNK)
        watch.read += 1
        if watch.read <= 20:
            before = -1
            while before != watch.sent:
                before = watch.sent
                await asyncio.sleep(0.01)
        watch.look()


async def send_all(stream, watch: Watch) -> None:
    for _ in range(CHUNKS):
        await stream.send(Note(), CHUNK)
        watch.sent += 1


def assert_bounded(watch: Watch) -> None:
    assert watch.read == watch.sent == CHUNKS
    assert watch.most_ahead <= AHEAD
    assert watch.growth < GROWTH


async def test_a_slow_reader_of_a_1_gib_download_holds_the_server(server: Server):
    watch = Watch()

    async def handler(ctx, request, body, stream):
        await send_all(stream, watch)

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client, client.stream(DOWNLOAD, Note()) as stream:
        await read_slowly(stream, watch)
    assert_bounded(watch)


async def test_a_slow_reader_of_a_1_gib_upload_holds_the_client(server: Server):
    watch = Watch()

    async def handler(ctx, request, body, stream):
        await read_slowly(stream, watch)
        return Note("done")

    server.dispatcher.register(UPLOAD, handler)
    async with server.connected() as client, client.stream(UPLOAD, Note()) as stream:
        await send_all(stream, watch)
        await stream.end()
        assert (await stream.result())[0].text == "done"
    assert_bounded(watch)


@pytest.mark.parametrize("size", [0, 100])
async def test_a_reader_that_stops_holds_a_sender_of_small_messages(server: Server, size):
    sent = 0

    async def handler(ctx, request, body, stream):
        nonlocal sent
        while True:
            await stream.send(Note("x" * 50), bytes(size))
            sent += 1

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client, client.stream(DOWNLOAD, Note()) as stream:
        await stream.__anext__()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert 0 < sent < 30_000
