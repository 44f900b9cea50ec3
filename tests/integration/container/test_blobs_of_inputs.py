"""Arguments and results that are too large for a frame, through the real RPC stack over the container's own socket."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_agent import Agent

from intermodal.control.rpc import Dispatcher, serve_unix
from modal._serialization import deserialize, serialize
from modal._wire.messages.blob import BLOB_GET, BLOB_MISSING, BLOB_PUT, BlobDigests, BlobRef
from modal._wire.messages.call import INLINE_LIMIT, Status
from modal._wire.messages.common import Empty
from modal._wire.messages.runner import RunInput, RunInputs


@contextmanager
def blob_server(path: Path, blobs: dict[str, bytes]) -> Iterator[None]:
    """Serve `blobs` on the Unix socket `path`, from a thread of its own."""
    started, stop = threading.Event(), None
    loop = asyncio.new_event_loop()

    async def missing(context: Any, request: BlobDigests, body: bytes) -> BlobDigests:
        return BlobDigests([digest for digest in request.digests if digest not in blobs])

    async def put(context: Any, request: Any, body: bytes, stream: Any) -> BlobRef:
        data = b"".join([bytes(part) async for _, part in stream])
        assert hashlib.sha256(data).hexdigest() == request.digest
        blobs[request.digest] = data
        return BlobRef(request.digest, len(data))

    async def get(context: Any, request: BlobRef, body: bytes, stream: Any) -> None:
        await stream.send(Empty(), blobs[request.digest])

    async def serve() -> None:
        nonlocal stop
        stop = asyncio.Event()
        dispatcher = Dispatcher()
        for method, handler in ((BLOB_MISSING, missing), (BLOB_PUT, put), (BLOB_GET, get)):
            dispatcher.register(method, handler)  # type: ignore[arg-type]
        server = await serve_unix(dispatcher, path)
        started.set()
        await stop.wait()
        server.close()
        await dispatcher.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        assert stop is not None
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize(("definition", "concurrency"), [("def", 1), ("def", 2), ("async def", 1)])
def test_large_arguments_and_results_go_through_the_blob_store(
    definition: str, concurrency: int, tmp_path: Path
) -> None:
    # The agent tells the two kinds of connection on one socket apart; here they are two sockets.
    script = (
        "from modal import _runtime_context\n"
        f"_runtime_context.container_context().socket_path = {str(tmp_path / 'rpc')!r}\n"
        f"{definition} f(x): return x + x"
    )
    blobs: dict[str, bytes] = {}
    payload = serialize(((b"a" * INLINE_LIMIT,), {}))
    digest = hashlib.sha256(payload).hexdigest()
    blobs[digest] = payload
    with blob_server(tmp_path / "rpc", blobs), Agent(script) as agent:
        agent.ready("f", concurrency=concurrency)
        agent.send(RunInputs([RunInput("a", "fc-1", 0, BlobRef(digest, len(payload)))]))
        record, _ = agent.output("a")
        assert record.status is Status.SUCCESS, agent.output("a")
        assert record.size == 0
        assert record.blob is not None
        assert deserialize(blobs[record.blob.digest]) == b"a" * INLINE_LIMIT * 2


def test_an_unreachable_blob_store_fails_the_input_with_the_reason(tmp_path: Path) -> None:
    script = (
        "from modal import _runtime_context\n"
        f"_runtime_context.container_context().socket_path = {str(tmp_path / 'none')!r}\n"
        "from modal._container import blobs\nblobs.CONNECT_TIMEOUT = 0\n"
        f"def f(): return b'a' * {INLINE_LIMIT + 1}"
    )
    with Agent(script) as agent:
        record, exc = agent.ready("f").call()
        assert record.status is Status.FAILURE
        assert type(exc).__name__ == "ConnectionError"
