"""Payloads that are too large for a frame: fetched from and put into the blob store through the container's socket.

Only an input that needs it imports this, and with it asyncio and the RPC client.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Callable

from modal._runtime_context import container_context
from modal._upload import download_bytes, upload_bytes
from modal._wire.client import RpcClient
from modal._wire.messages.blob import BlobRef

CONNECT_TIMEOUT = 10.0  #: seconds


def fetch(ref: dict[str, Any]) -> bytes:
    """Return the bytes that `ref` names. Raises errors of `modal.exception`."""
    blob = BlobRef(str(ref["digest"]), int(ref["size"]))
    return bytes(_run(lambda client: download_bytes(client, blob)))


def store(payload: bytes) -> dict[str, Any]:
    """Keep `payload` in the blob store and return its reference. Raises errors of `modal.exception`."""
    blob: BlobRef = _run(lambda client: upload_bytes(client, payload))
    return {"digest": blob.digest, "size": blob.size}


def _run(transfer: Callable[[RpcClient], Coroutine[Any, Any, Any]]) -> Any:
    """Run one transfer on a connection and an event loop of its own: the caller may be inside a loop of the user's."""
    outcome: list[Any] = []

    async def connect_and_transfer() -> Any:
        context = container_context()
        assert context is not None
        session = f"se-{context.container_id}"
        client = RpcClient(f"unix://{context.socket_path}", session=session, connect_timeout=CONNECT_TIMEOUT)
        await client.open()
        try:
            return await transfer(client)
        finally:
            await client.close()

    def work() -> None:
        try:
            outcome.append((asyncio.run(connect_and_transfer()), None))
        except BaseException as error:  # handed to the thread that waits
            outcome.append((None, error))

    thread = threading.Thread(target=work, name="modal-blob", daemon=True)
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
