"""Results are kept for the retention time; then they, and the files behind them, are gone, and a client is told so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_server import KillableServer, until

import modal
from modal.exception import NotFoundError, OutputExpiredError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KillableServer]:
    one = KillableServer(tmp_path, RETENTION="1.5")
    one.start()
    yield one
    one.stop()


def blobs(server: KillableServer) -> int:
    return sum(path.stat().st_size for path in (server.data_dir / "blobs").glob("??/*"))


def test_a_result_expires_with_its_files_and_an_unknown_call_is_not_found(
    server: KillableServer, client: modal.Client, tmp_path: Path
) -> None:
    app = modal.App("expiring")

    @app.function(serialized=True)
    def grow(data: bytes) -> bytes:
        return data * 2

    @app.function(serialized=True)
    def hold(data: bytes, path: str) -> int:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.05)
        return len(data)

    with app.run(client=client, detach=True):
        held = hold.spawn(b"held" * 1_000_000, str(tmp_path / "go"))
        call = grow.spawn(b"some" * 1_000_000)
        assert len(call.get(timeout=20)) == 8_000_000
        ended = time.monotonic()
        until(lambda: blobs(server) < 5_000_000, "the expired files to be deleted")
        assert time.monotonic() - ended > 1.0
        with pytest.raises(OutputExpiredError, match="have been deleted"):
            call.get()
        with pytest.raises(NotFoundError, match="no function call"):
            modal.FunctionCall.from_id("fc-0000000000000000000000", client).get()
        server.kill()
        server.start()
        with pytest.raises(OutputExpiredError):
            call.get()
        time.sleep(2)  # the input of a call that runs is never old enough
        (tmp_path / "go").touch()
        assert held.get(timeout=20) == 4_000_000
        until(lambda: blobs(server) == 0, "every file to be deleted")
