"""Large arguments and results travel through the blob store, and the server's memory stays flat."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from killable_server import KillableServer

import modal
from modal._wire.messages.call import PAYLOAD_LIMIT
from modal.exception import RequestSizeError

#: MiB of the argument and of the result. 2040 is as much as fits into the limit.
SIZE = int(os.environ.get("INTERMODAL_LARGE_PAYLOAD", "256"))
GROWTH = 48  #: MiB that the server's memory may grow by, whatever the size


@contextmanager
def most_memory(process: psutil.Process) -> Iterator[list[int]]:
    """The most resident memory, in bytes, that the process had during the block."""
    most = [process.memory_info().rss]
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(900)
def test_the_servers_memory_stays_flat_with_large_arguments_and_results(
    server: KillableServer, client: modal.Client
) -> None:
    app = modal.App("large")

    @app.function(serialized=True, timeout=900, memory=128)
    def echo(data: bytes) -> bytes:
        return data

    with app.run(client=client):
        assert echo.remote(b"warm") == b"warm"
        before = server.process.memory_info().rss
        data = os.urandom(1 << 20) * SIZE
        began = time.monotonic()
        with most_memory(server.process) as most:
            assert echo.remote(data) == data
        growth = (most[0] - before) >> 20
        print(f"{SIZE} MiB there and back: {time.monotonic() - began:.1f} s, the server grew by {growth} MiB")
        assert growth < GROWTH


def test_a_payload_over_the_limit_is_refused_before_anything_is_sent(
    server: KillableServer, client: modal.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = modal.App("over")

    @app.function(serialized=True)
    def size(data: bytes) -> int:
        return len(data)

    monkeypatch.setattr("modal._calls.payload.PAYLOAD_LIMIT", 5 << 20)  # the real one needs 2 GiB of memory here
    with app.run(client=client):
        assert size.remote(bytes(5_000_000)) == 5_000_000
        uploaded = set((server.data_dir / "blobs").glob("??/*"))
        for call in (size.remote, size.spawn, lambda data: list(size.map([data]))):
            with pytest.raises(
                RequestSizeError, match=r"arguments of size .* over the limit.* put large data in a Volume"
            ):
                call(bytes(6_000_000))
        assert set((server.data_dir / "blobs").glob("??/*")) == uploaded
    assert PAYLOAD_LIMIT == 2 * 1024**3


def test_a_result_over_the_limit_is_an_error_of_its_call_alone(server: KillableServer, client: modal.Client) -> None:
    app = modal.App("over")

    @app.function(serialized=True, concurrency_limit=1)
    def make(size: int) -> tuple[bytes, int]:
        import os

        from modal._container import task

        task.PAYLOAD_LIMIT = 5 << 20  # the real one needs several GiB of memory here
        return bytes(size), os.getpid()

    with app.run(client=client):
        kept, container = make.remote(5_000_000)
        assert kept == bytes(5_000_000)
        uploaded = set((server.data_dir / "blobs").glob("??/*"))
        too_large = r"result takes \d+ bytes pickled, over the limit .* put large data in a Volume"
        for call in (make.remote, lambda size: make.spawn(size).get(), lambda size: list(make.map([1, size]))):
            with pytest.raises(RequestSizeError, match=too_large):
                call(6_000_000)
        first, second = make.map([6_000_000, 1], return_exceptions=True)
        assert isinstance(first, RequestSizeError)
        assert second == (b"\0", container), "the container goes on"
        assert set((server.data_dir / "blobs").glob("??/*")) == uploaded
