"""While the journal cannot be written, nothing new is accepted and everyone is told; afterwards nothing is missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_server import KillableServer, until

import modal
from intermodal.builder.memory import MemoryBuilder
from intermodal.daemon import running
from intermodal.settings import Settings
from intermodal.store.failing import FailingStore
from modal._sync import run
from modal.exception import InternalFailure


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_server(small_disk: Path) -> Iterator[KillableServer]:
    server = KillableServer(small_disk, PORT="0")
    server.start()
    yield server
    server.stop()


def warnings_of(client: modal.Client) -> list[str]:
    return run(client._info()).warnings


def health(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def spawn_until_it_fails(size: modal.Function) -> None:
    """The database may still have some pages to write into."""
    for _ in range(20):
        size.spawn(os.urandom(300_000))


def test_a_full_disk_fails_spawn_and_the_server_recovers_when_there_is_space(
    small_disk: Path, small_server: KillableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    client = modal.Client(small_server.target)
    app = modal.App("full")

    @app.function(serialized=True)
    def size(data: bytes) -> int:
        import time

        time.sleep(0.5)
        return len(data)

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: run(client._close()))
        stack.enter_context(app.run(client=client, detach=True))
        url = run(client._info()).url
        before = size.spawn(b"a" * 100_000)  # runs while the disk is full: its result cannot be kept at first
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        with pytest.raises(InternalFailure, match="full"):
            spawn_until_it_fails(size)
        with pytest.raises(InternalFailure, match="takes no new calls while it cannot keep them"):
            size.remote(b"")
        assert "full" in warnings_of(client)[0]
        assert health(url) == (503, {"ok": False})  # anyone may ask; the reason is for clients
        assert before.get(timeout=20) == 100_000, "what was accepted still runs"

        filler.unlink()
        until(lambda: not warnings_of(client), "the server to recover")
        assert health(url) == (200, {"ok": True})
        after = size.spawn(b"b" * 10)
        small_server.kill()
        small_server.start()
        assert [before.get(timeout=20), after.get(timeout=20)] == [100_000, 10]


async def test_a_spawn_that_could_not_be_kept_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    settings = Settings(data_dir=tmp_path / "data", port=-1, runtime="mock", builder="memory")
    settings.run_dir.mkdir(parents=True)
    store = FailingStore()
    builder = MemoryBuilder(python=sys.executable, python_version=platform.python_version())
    app = modal.App("failing")
    mark = tmp_path / "ran"

    @app.function(serialized=True)
    def leave(path: str) -> None:
        import pathlib

        pathlib.Path(path).touch()

    async with running(settings, builder, store):
        client = modal.Client(f"unix://{settings.socket}")
        async with app.run(client=client):
            await leave.remote.aio(str(tmp_path / "warm"))
            # It fails between being accepted and being durable: the write is refused, the earlier check was not.
            healthy = store.healthy
            monkeypatch.setattr(store, "healthy", lambda: "")
            store.fail("The database failed: no space is left.")
            with pytest.raises(InternalFailure, match="no space is left"):
                await leave.spawn.aio(str(mark))
            monkeypatch.setattr(store, "healthy", healthy)
            store.recover()
            [call] = [call for call in store._calls.values() if call.kind.value == "spawn"]
            assert call.finished_at is not None, "it is ended with the first write, so a restart does not run it either"
            await leave.remote.aio(str(tmp_path / "later"))
        await asyncio.to_thread(lambda: run(client._close()))


async def test_direct_calls_end_too_while_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    settings = Settings(data_dir=tmp_path / "data", runtime="mock", builder="memory", database_url="memory://", port=-1)
    settings.run_dir.mkdir(parents=True)
    store = FailingStore()
    builder = MemoryBuilder(python=sys.executable, python_version=platform.python_version())
    app = modal.App("failing")

    @app.function(serialized=True)
    def same(x: int) -> int:
        return x

    def get_line() -> None:
        def has_line() -> bool:
            assert same.remote(1) == 1
            return same._direct is not None and same._direct._line is not None

        until(has_line, "a direct line")

    def is_refused() -> bool:
        try:
            assert same.remote(1) == 1
        except InternalFailure as error:
            return "no space is left" in str(error)
        return False

    async with running(settings, builder, store):
        client = modal.Client(f"unix://{settings.socket}")
        async with app.run(client=client):
            await asyncio.to_thread(get_line)
            store.fail("The database failed: no space is left.")
            await asyncio.to_thread(until, is_refused, "the server to take back the line")
            store.recover()
            await asyncio.to_thread(get_line)
        await asyncio.to_thread(lambda: run(client._close()))
