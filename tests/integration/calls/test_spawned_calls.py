"""Spawned calls: waiting, polling, finding them again; what a function says of itself."""

from __future__ import annotations

import pickle
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from real_server import PYTHON, RealServer, until

import modal
from modal.cli.main import run_command_line
from modal.exception import InvalidError, NotFoundError
from modal.functions import FunctionStats, gather

UNKNOWN = "fc-" + "0" * 22


def wait_for_file(path: str) -> str:
    import os

    while not os.path.exists(path):
        time.sleep(0.01)
    return "found"


def test_polling_says_whether_there_is_a_result(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True)(wait_for_file)
    with app.run():
        call = wait.spawn(str(tmp_path / "go"))
        with pytest.raises(TimeoutError, match="no result yet"):
            call.get(timeout=0)
        with pytest.raises(modal.exception.TimeoutError):
            call.get(timeout=0.05)
        (tmp_path / "go").touch()
        assert call.get(timeout=20) == "found"
        assert call.get(timeout=0) == "found"
        for bad in (-1, "1", True):
            with pytest.raises(InvalidError, match="timeout"):
                call.get(timeout=bad)  # type: ignore[arg-type]


def test_a_call_is_found_by_its_id_and_travels_as_a_pickle(app: modal.App) -> None:
    @app.function(serialized=True)
    def double(x: int) -> int:
        return 2 * x

    @app.function(serialized=True)
    def collect(call: modal.FunctionCall[int], call_id: str) -> tuple[int, int]:
        return call.get(), modal.FunctionCall.from_id(call_id).get(timeout=10)

    with app.run():
        call = double.spawn(4)
        assert call.hydrate() is call
        again = modal.FunctionCall.from_id(call.object_id)
        assert again.hydrate().object_id == call.object_id
        assert again.get(timeout=20) == pickle.loads(pickle.dumps(call)).get() == 8
        assert collect.remote(call, call.object_id) == (8, 8)


def test_ids_that_are_not_those_of_calls_are_refused(app: modal.App) -> None:
    @app.function(serialized=True)
    def one() -> int:
        return 1

    with pytest.raises(InvalidError, match="is a string, not 3"):
        modal.FunctionCall.from_id(3)  # type: ignore[arg-type]
    for wrong in ("", "x", "in-" + "0" * 22, "ap-1"):
        with pytest.raises(NotFoundError, match="begin with 'fc-'"):
            modal.FunctionCall.from_id(wrong)
    for unknown in (UNKNOWN, "fc-", "fc-" + "x" * 500, "fc-\0'; DROP TABLE calls"):
        with pytest.raises(NotFoundError, match="no function call"):
            modal.FunctionCall.from_id(unknown).get(timeout=0)
    with pytest.raises(NotFoundError, match="no function call"):
        list(modal.FunctionCall.from_id(UNKNOWN, is_generator=True).get_gen())
    with app.run(), pytest.raises(NotFoundError, match="begin with 'fc-'"):
        modal.FunctionCall.from_id(one.object_id)


def test_a_call_of_another_environment_is_not_found(app: modal.App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.function(serialized=True)
    def environments() -> tuple[str, int]:
        call = environments_inner.spawn()
        return call.object_id, modal.FunctionCall.from_id(call.object_id).get(timeout=10)

    @app.function(serialized=True)
    def environments_inner() -> int:
        return 1

    with pytest.raises(NotFoundError, match="no environment 'elsewhere'; there are: main"):
        app.run(environment_name="elsewhere").__enter__()
    assert run_command_line(["environment", "create", "elsewhere"]) == 0
    with app.run(environment_name="elsewhere"):
        call = environments_inner.spawn()
        assert call.get(timeout=20) == 1  # the caller made it: its environment does not matter
        assert environments.remote()[1] == 1  # a container belongs to the environment of its app
        found = modal.FunctionCall.from_id(call.object_id)
        for use in (found.cancel, found.get_call_graph, found.get):
            with pytest.raises(NotFoundError, match="in the environment 'main'; it belongs to another one"):
                use()
    monkeypatch.setenv("MODAL_ENVIRONMENT", "elsewhere")
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=5) == 1  # its app has ended


def test_a_container_cannot_use_calls_of_another_app(app: modal.App) -> None:
    @app.function(serialized=True)
    def spy(call_id: str) -> str:
        from modal import FunctionCall

        call = FunctionCall.from_id(call_id)
        said = []
        for use in (call.get, call.cancel, call.get_call_graph):
            try:
                use()
            except Exception as error:
                said.append(type(error).__name__)
        return " ".join(said)

    other = modal.App("other", image=app.image)

    @other.function(serialized=True)
    def secret() -> int:
        return 1

    with app.run(), other.run():
        assert spy.remote(secret.spawn().object_id) == "AuthError AuthError AuthError"


def test_gather_gives_results_in_order_or_the_first_failure(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True)
    def slow(path: str) -> str:
        time.sleep(0.5)
        open(path, "w").close()
        return "slow"

    @app.function(serialized=True)
    def fail() -> str:
        raise KeyError("no such thing")

    @app.function(serialized=True)
    def inside(path: str) -> list[str]:
        return list(gather(slow.spawn(path), slow.spawn(path)))

    path = str(tmp_path / "done")
    with app.run():
        assert gather(slow.spawn(path), slow.spawn(path)) == ["slow", "slow"]
        assert gather() == []
        assert inside.remote(path) == ["slow", "slow"]
        (tmp_path / "done").unlink()
        with pytest.raises(KeyError, match="no such thing"):
            gather(slow.spawn(path), fail.spawn())
        until((tmp_path / "done").exists, "the other call to go on")
        with pytest.raises(InvalidError, match="FunctionCall"):
            gather(slow.spawn(path), "fc-1")  # type: ignore[arg-type]


async def test_gather_can_be_awaited(app: modal.App) -> None:
    @app.function(serialized=True)
    def double(x: int) -> int:
        return 2 * x

    async with app.run():
        assert await gather.aio(await double.spawn.aio(1), await double.spawn.aio(2)) == [2, 4]


def test_a_spawned_generator_is_followed(app: modal.App) -> None:
    @app.function(serialized=True)
    def count(n: int) -> Iterator[int]:
        yield from range(n)
        if n == 3:
            raise ValueError("that was three")

    @app.function(serialized=True)
    def inside() -> list[int]:
        return list(count.spawn(5).get_gen())

    with app.run():
        call = count.spawn(200)
        with pytest.raises(InvalidError, match="get_gen"):
            call.get()
        assert list(call.get_gen()) == list(range(200))
        again = modal.FunctionCall.from_id(count.spawn(2).object_id, is_generator=True)
        assert list(again.get_gen()) == [0, 1]
        values = iter(count.spawn(3).get_gen())
        assert [next(values), next(values), next(values)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(values)
        assert inside.remote() == [0, 1, 2, 3, 4]
        with pytest.raises(InvalidError, match="no call of a generator: use get"):
            list(inside.spawn().get_gen())


def test_the_warm_pool_can_be_changed_and_is_seen_in_the_statistics(app: modal.App) -> None:
    @app.function(serialized=True, concurrency_limit=3)
    def pid() -> int:
        import os

        return os.getpid()

    @app.function(serialized=True)
    def manager(size: int) -> tuple[int, int]:
        pid.keep_warm(size)
        stats = pid.get_current_stats()
        return stats.backlog, stats.num_total_runners

    with app.run():
        assert pid.get_current_stats() == FunctionStats(backlog=0, num_total_runners=0)
        pid.keep_warm(2)
        until(lambda: pid.get_current_stats().num_total_runners == 2, "two warm containers")
        assert manager.remote(1)[0] == 0
        pid.keep_warm(0)
        with pytest.raises(InvalidError, match="concurrency_limit"):
            pid.keep_warm(4)
        for bad in (-1, 10_001, 1.5, True, "2"):
            with pytest.raises(InvalidError, match="warm_pool_size"):
                pid.keep_warm(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="not running"):
        pid.keep_warm(1)
    with pytest.raises(InvalidError, match="not running"):
        pid.get_current_stats()


def test_waiting_inputs_are_the_backlog(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, concurrency_limit=1)(wait_for_file)
    with app.run():
        calls = [wait.spawn(str(tmp_path / "go")) for _ in range(5)]
        until(lambda: wait.get_current_stats() == FunctionStats(4, 1), "one to run and four to wait")
        (tmp_path / "go").touch()
        assert gather(*calls) == ["found"] * 5


async def test_statistics_and_the_warm_pool_can_be_awaited(app: modal.App) -> None:
    @app.function(serialized=True)
    def one() -> int:
        return 1

    async with app.run():
        await one.keep_warm.aio(0)
        assert await one.get_current_stats.aio() == FunctionStats(0, 0)
        assert (await one.hydrate.aio()).object_id.startswith("fu-")


async def test_local_calls_the_python_function_of_every_kind(app: modal.App) -> None:
    @app.function(serialized=True)
    def plain(x: int) -> int:
        return x

    @app.function(serialized=True)
    async def coroutine(x: int) -> int:
        return x

    @app.function(serialized=True)
    def generator(x: int) -> Iterator[int]:
        yield x

    @app.function(serialized=True)
    async def async_generator(x: int) -> AsyncIterator[int]:
        yield x

    @app.function(serialized=True)
    def inside() -> tuple[int, bool]:
        return inside_local.local(), modal.is_local()

    @app.function(serialized=True)
    def inside_local() -> int:
        return 7

    assert plain.local(1) == 1
    assert await coroutine.local(2) == 2
    assert list(generator.local(3)) == [3]
    assert [one async for one in async_generator.local(4)] == [4]
    assert [f.is_generator for f in (plain, coroutine, generator, async_generator)] == [False, False, True, True]
    assert plain.get_raw_f()(5) == 5
    async with app.run():
        assert await plain.remote.aio(1) == await coroutine.remote.aio(1) == 1
        assert [one async for one in generator.remote_gen.aio(3)] == [3]
        assert [one async for one in async_generator.remote_gen.aio(4)] == [4]
        with pytest.raises(InvalidError, match="Python code"):
            pickle.loads(pickle.dumps(plain)).get_raw_f()


def test_the_current_ids_are_those_of_the_input(app: modal.App) -> None:
    @app.function(serialized=True)
    def ids() -> tuple[str | None, str | None]:
        return modal.current_input_id(), modal.current_function_call_id()

    assert (modal.current_input_id(), modal.current_function_call_id()) == (None, None)
    with app.run():
        call = ids.spawn()
        assert call.get(timeout=20) == (f"in-{call.object_id[3:]}-0", call.object_id)


def test_a_changed_warm_pool_outlives_a_restart_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modal._objects import client as client_module
    from modal._sync import run

    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    monkeypatch.setattr(client_module, "_default", None)
    app = modal.App("calls-test", image=modal.Image.debian_slim(python_version=PYTHON))

    @app.function(serialized=True)
    def one() -> int:
        return 1

    def is_warm() -> bool:
        return one.get_current_stats().num_total_runners == 1

    with RealServer(tmp_path, database_url="", session_grace=20) as server:
        monkeypatch.setenv("MODAL_SERVER_URL", server.url)
        started = app.run(detach=True)
        started.__enter__()
        one.keep_warm(1)
        until(is_warm, "a warm container")
    with RealServer(tmp_path, database_url="", session_grace=20):
        until(is_warm, "a warm container of the next server")
        started.__exit__(None, None, None)
        run(client_module.default_client()._close())
