"""`modal.Dict` against a real server, with an SQLite database."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_server import RealServer, until

import modal
from intermodal.store.sql import SqlStore
from modal._serialization import serialize
from modal._sync import run
from modal._wire.client import RpcClient
from modal._wire.messages.named import NAMED_GET
from modal.exception import (
    DeserializationError,
    InvalidError,
    NotFoundError,
    RequestSizeError,
    SerializationError,
)


@pytest.fixture
def shared(real_server: RealServer) -> Iterator[modal.Dict]:
    with modal.Dict.ephemeral() as one:
        yield one


def test_every_operation_and_operator(shared: modal.Dict) -> None:
    shared["a"] = 1
    shared.put("b", [2])
    shared.update(c={"d": 3}, e=None)
    assert shared["a"] == 1
    assert shared.get("b") == [2]
    assert shared.get("e", "default") is None
    assert shared.get("missing") is None
    assert shared.get("missing", 7) == 7
    assert "a" in shared
    assert shared.contains("missing") is False
    assert shared.len() == 4
    assert dict(shared.items()) == {"a": 1, "b": [2], "c": {"d": 3}, "e": None}
    assert sorted(shared.keys()) == ["a", "b", "c", "e"]
    assert sorted(map(str, shared.values())) == ["1", "None", "[2]", "{'d': 3}"]
    assert shared.pop("a") == 1
    del shared["b"]
    with pytest.raises(KeyError, match="a"):
        shared["a"]
    with pytest.raises(KeyError, match="b"):
        shared.pop("b")
    with pytest.raises(KeyError):
        del shared["b"]
    shared.clear()
    assert shared.len() == 0
    assert list(shared.items()) == []


def test_the_async_forms(real_server: RealServer) -> None:
    async def use() -> None:
        async with modal.Dict.ephemeral({"x": 1}) as one:
            await one.put.aio("y", 2)
            assert await one.get.aio("x") == 1
            assert [pair async for pair in one.items.aio()] == [("x", 1), ("y", 2)]
            assert await one.pop.aio("y") == 2
            assert await one.len.aio() == 1

    import asyncio

    asyncio.run(use())


@pytest.mark.parametrize(
    "key",
    ["text", b"bytes", 5, 2.5, None, (1, ("a", frozenset([3]))), [1, [2]], {"a": [1]}, modal.gpu.A100(), Path("/x")],
)
def test_any_picklable_key(shared: modal.Dict, key: Any) -> None:
    shared[key] = "value"
    assert shared[key] == "value"
    assert key in shared
    [found] = shared.keys()
    assert str(found) == str(key)


def test_equal_keys_are_one_however_they_were_made(shared: modal.Dict) -> None:
    same = "".join(["a", "b"])
    shared[("ab", "ab")] = 1
    shared[(same, "".join(["a", "b"]))] = 2
    assert list(shared.items()) == [(("ab", "ab"), 2)]


def test_what_cannot_be_pickled_is_refused(shared: modal.Dict) -> None:
    with pytest.raises(SerializationError):
        shared["lock"] = threading.Lock()
    with pytest.raises(SerializationError):
        shared[threading.Lock()] = 1
    with pytest.raises(RequestSizeError, match="1 MiB"):
        shared["k" * 2_000_000] = 1
    assert shared.len() == 0


@pytest.mark.parametrize("size", [0, 10_000, 1_000_000, 30_000_000])
def test_values_of_any_size(shared: modal.Dict, size: int) -> None:
    value = bytes(size)
    shared["v"] = value
    shared["other"] = 1
    assert shared["v"] == value
    assert dict(shared.items())["v"] == value
    assert shared.pop("v") == value
    assert "v" not in shared


def test_a_value_over_the_limit_is_refused(shared: modal.Dict) -> None:
    with pytest.raises(RequestSizeError, match="100 MiB"):
        shared["v"] = bytes(101 * 1024 * 1024)


def test_many_keys_of_any_size_are_put_at_once(real_server: RealServer) -> None:
    keys = [str(number) + "k" * 1_000_000 for number in range(40)]
    with modal.Dict.ephemeral(dict.fromkeys(keys[:20], 1)) as many:
        many.update(**dict.fromkeys(keys[20:], 2))
        assert sorted(many.keys()) == sorted(keys)
        assert sum(many.values()) == 60


def test_it_is_no_sequence(shared: modal.Dict) -> None:
    shared[0] = "what a sequence would begin with"
    with pytest.raises(TypeError, match=r"\.keys\(\)"):
        list(shared)
    with pytest.raises(TypeError, match=r"\.keys\(\)"):
        for _ in shared:
            pass
    with pytest.raises(TypeError, match=r"\.len\(\)"):
        len(shared)
    assert dict(shared) == {0: "what a sequence would begin with"}
    shared.clear()
    assert bool(shared), "that it is empty only the server knows"


class Unreadable:
    """Unpickling it does something, and then fails."""

    def __init__(self, size: int = 0, act: Callable[[], None] | None = None) -> None:
        Unreadable.act = act
        self.padding = bytes(size)

    act: Callable[[], None] | None = None

    def __reduce__(self) -> Any:
        return _fail, (self.padding,)


def _fail(padding: bytes) -> None:
    if Unreadable.act is not None:
        Unreadable.act()
    raise ValueError("not here")


@pytest.mark.parametrize("size", [0, 20_000, 3_000_000])
def test_a_value_that_cannot_be_read_here_is_not_lost_by_pop(shared: modal.Dict, size: int) -> None:
    shared["bad"] = Unreadable(size)
    for _ in range(2):
        with pytest.raises(DeserializationError, match=r"not here.*still in the Dict"):
            shared.pop("bad")
        assert "bad" in shared
        assert shared.len() == 1
    del shared["bad"]
    assert "bad" not in shared
    with pytest.raises(KeyError, match="bad"):
        del shared["bad"]


def test_what_pop_puts_back_replaces_nothing(shared: modal.Dict) -> None:
    shared["bad"] = Unreadable(act=lambda: shared.put("bad", "put meanwhile"))
    with pytest.raises(DeserializationError):
        shared.pop("bad")
    assert shared["bad"] == "put meanwhile"


class SlowReads:
    """Holds up the first read of a value from the database until the block's end."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self._go = threading.Event(), threading.Event()
        read = SqlStore.dict_value

        async def dict_value(store: SqlStore, dict_id: str, key: bytes) -> bytes | None:
            if not self.reached.is_set():
                self.reached.set()
                import asyncio

                await asyncio.to_thread(self._go.wait, 20)
            return await read(store, dict_id, key)

        patch.setattr(SqlStore, "dict_value", dict_value)

    def __enter__(self) -> None:
        assert self.reached.wait(20)

    def __exit__(self, *_: object) -> None:
        self._go.set()


def put_in_database(shared: modal.Dict, patch: pytest.MonkeyPatch) -> None:
    """Put a value and wait until it has left the server's memory."""
    shared["k"] = bytes(20_000)
    asked = threading.Event()
    read = SqlStore.dict_value
    with patch.context() as counting:
        counting.setattr(SqlStore, "dict_value", lambda *args: (asked.set(), read(*args))[1])
        until(lambda: len(shared["k"]) and asked.is_set(), "the value to be read from the database")


READS: dict[str, Callable[[modal.Dict], Any]] = {
    "get": lambda shared: shared.get("k", "missing"),
    "pop": lambda shared: shared.pop("k"),
    "items": lambda shared: dict(shared.items()).get("k", "missing"),
    "values": lambda shared: next(iter(shared.values()), "missing"),
}


@pytest.mark.parametrize("size", [3, 30_000, 3_000_000])
@pytest.mark.parametrize("name", READS)
def test_a_key_that_is_replaced_while_it_is_read_is_there(
    shared: modal.Dict, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    put_in_database(shared, monkeypatch)
    slow, found = SlowReads(monkeypatch), []
    reader = threading.Thread(target=lambda: found.append(READS[name](shared)))
    reader.start()
    with slow:
        shared["k"] = b"n" * size
    reader.join(20)
    assert found == [b"n" * size]


def failure_of(read: Callable[[modal.Dict], Any], shared: modal.Dict) -> Any:
    try:
        return read(shared)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", READS)
def test_a_key_that_is_removed_while_it_is_read_is_missing(
    shared: modal.Dict, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put_in_database(shared, monkeypatch)
    slow, found = SlowReads(monkeypatch), []
    reader = threading.Thread(target=lambda: found.append(failure_of(READS[name], shared)))
    reader.start()
    with slow:
        del shared["k"]
    reader.join(20)
    assert found == [KeyError if name == "pop" else "missing"]


@pytest.mark.parametrize("name", READS)
def test_a_dict_that_is_deleted_while_it_is_read_is_not_found(
    real_server: RealServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shared = modal.Dict.lookup("short-lived", create_if_missing=True)
    put_in_database(shared, monkeypatch)
    slow, found = SlowReads(monkeypatch), []
    reader = threading.Thread(target=lambda: found.append(failure_of(READS[name], shared)))
    reader.start()
    with slow:
        modal.Dict.delete("short-lived")
    reader.join(20)
    assert found == [NotFoundError]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([("a", 1)], InvalidError),
        ({"a": threading.Lock()}, SerializationError),
        ({"k" * 2_000_000: 1}, RequestSizeError),
    ],
)
def test_a_dict_is_not_made_when_it_cannot_begin_with_its_data(
    real_server: RealServer, data: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        modal.Dict.lookup("never-made", data, create_if_missing=True)
    with pytest.raises(error):
        modal.Dict.from_name("never-made", data, create_if_missing=True).hydrate()
    with pytest.raises(error), modal.Dict.ephemeral(data):
        pass
    with pytest.raises(NotFoundError):
        modal.Dict.lookup("never-made")


def test_iteration_over_many_entries_is_streamed(real_server: RealServer) -> None:
    with modal.Dict.ephemeral({number: number * 2 for number in range(100_000)}) as many:
        assert many.len() == 100_000
        first = iter(many.items())
        assert next(first) == (0, 0)
        first.close()  # type: ignore[attr-defined]
        assert sum(1 for key, value in many.items() if value == key * 2) == 100_000
        assert sum(many.values()) == sum(range(100_000)) * 2


def test_one_of_many_pops_gets_the_entry(shared: modal.Dict) -> None:
    values = [1, bytes(20_000), bytes(3_000_000)]  # in memory, in the database, a blob
    for value in values:
        shared["prize"] = value
        won: list[Any] = []
        lost: list[KeyError] = []

        def pop(won: list[Any] = won, lost: list[KeyError] = lost) -> None:
            try:
                won.append(shared.pop("prize"))
            except KeyError as error:
                lost.append(error)

        threads = [threading.Thread(target=pop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert won == [value]
        assert len(lost) == 7


def test_names(real_server: RealServer) -> None:
    with pytest.raises(NotFoundError, match="modal dict create nobody"):
        modal.Dict.lookup("nobody")
    lazy = modal.Dict.from_name("nobody")
    with pytest.raises(NotFoundError, match="nobody"):
        lazy.get("x")
    made = modal.Dict.from_name("mine", {"began": "with"}, create_if_missing=True)
    assert made["began"] == "with"
    made["began"] = "went on"
    assert modal.Dict.lookup("mine", {"began": "again"}, create_if_missing=True)["began"] == "went on"
    assert modal.Dict.lookup("mine").object_id == made.object_id
    assert made.object_id.startswith("di-")
    modal.Dict.delete("mine")
    with pytest.raises(NotFoundError, match="deleted"):
        made.get("began")
    with pytest.raises(NotFoundError, match="mine"):
        modal.Dict.delete("mine")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "é", "..", 5])
def test_bad_names(real_server: RealServer, name: Any) -> None:
    with pytest.raises(InvalidError):
        modal.Dict.lookup(name, create_if_missing=True)


def test_environments_are_apart(real_server: RealServer) -> None:
    from modal._objects.client import default_client
    from modal._wire.messages.environment import ENVIRONMENT_CREATE, ENVIRONMENT_DELETE, EnvironmentRef

    async def ask(method: Any) -> None:
        await (await default_client()._rpc()).unary(method, EnvironmentRef("other"))

    run(ask(ENVIRONMENT_CREATE))
    here = modal.Dict.lookup("both", create_if_missing=True)
    there = modal.Dict.lookup("both", environment_name="other", create_if_missing=True)
    here["x"], there["x"] = "main", "other"
    assert (here["x"], there["x"]) == ("main", "other")
    run(ask(ENVIRONMENT_DELETE))
    with pytest.raises(NotFoundError, match="deleted"):
        there.get("x")
    assert here["x"] == "main"
    with pytest.raises(NotFoundError, match="environment"):
        modal.Dict.lookup("both", environment_name="other")
    modal.Dict.delete("both")


def test_an_ephemeral_dict_ends_with_its_context(real_server: RealServer) -> None:
    with modal.Dict.ephemeral({"a": 1}) as one:
        assert one["a"] == 1
    with pytest.raises(NotFoundError):
        one.get("a")


def test_an_ephemeral_dict_ends_with_its_client(real_server: RealServer) -> None:
    client = modal.Client(real_server.url)
    context = modal.Dict.ephemeral({"a": 1}, client=client)
    one = context.__enter__()
    other = modal.Dict._named("x", None, False)
    other._object_id = one.object_id
    assert other["a"] == 1
    run(client._close())

    def gone() -> bool:
        try:
            other.get("a")
        except NotFoundError:
            return True
        return False

    assert until(gone, "the dict to be deleted")


def test_dicts_travel_as_arguments_and_values(shared: modal.Dict) -> None:
    import pickle

    shared["self"] = shared
    copy = shared["self"]
    copy["x"] = 1
    assert shared["x"] == 1
    named = modal.Dict.from_name("traveller", create_if_missing=True)
    assert pickle.loads(pickle.dumps(named))._name == "traveller"


def test_functions_use_dicts(real_server: RealServer, shared: modal.Dict) -> None:
    import sys

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    app = modal.App("dict-user", image=modal.Image.debian_slim(python_version=python))

    @app.function(serialized=True)
    def count(counts: Any, word: str) -> list[Any]:
        import modal

        named = modal.Dict.from_name("from-inside", create_if_missing=True)
        named[word] = len(word)
        counts[word] = counts.get(word, 0) + 1
        with modal.Dict.ephemeral({"a": 1}) as own:
            return [own["a"], named[word]]

    with app.run():
        assert count.remote(shared, "hello") == [1, 5]
        assert count.remote(shared, "hello") == [1, 5]
    assert shared["hello"] == 2
    assert modal.Dict.lookup("from-inside")["hello"] == 5
    modal.Dict.delete("from-inside")


def test_nobody_finds_a_new_dict_without_what_it_begins_with(real_server: RealServer) -> None:
    data = {f"key-{number}": "x" * 500 for number in range(300)}
    for turn in range(15):
        name = f"begun-{turn}"
        sizes: list[int] = []

        def look(name: str = name, sizes: list[int] = sizes) -> None:
            sizes.append(modal.Dict.lookup(name, data, create_if_missing=True).len())

        looking = [threading.Thread(target=look) for _ in range(3)]
        for one in looking:
            one.start()
        for one in looking:
            one.join(20)
        assert sizes == [300] * 3
        modal.Dict.delete(name)


def test_a_dict_may_begin_with_more_than_a_request_holds(real_server: RealServer) -> None:
    data: dict[Any, Any] = {number: number for number in range(12_000)} | {"large": bytes(3_000_000)}
    begun = modal.Dict.lookup("begun-with-much", data, create_if_missing=True)
    assert dict(begun.items()) == data
    modal.Dict.delete("begun-with-much")


@pytest.mark.parametrize(("count", "size", "seconds"), [(200, 0, 0.003), (40, 3_000_000, 0.02)])
def test_cancelled_pops_lose_nothing(count: int, size: int, seconds: float, shared: modal.Dict) -> None:
    chance = random.Random(1)
    for number in range(count):
        shared[number] = (number, bytes(size))

    async def pop_all() -> set[int]:
        popped: set[int] = set()
        for number in range(count):
            task = asyncio.ensure_future(shared.pop.aio(number))
            await asyncio.sleep(chance.random() * seconds)
            task.cancel()
            [result] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, tuple):
                popped.add(result[0])
        return popped

    popped, left = asyncio.run(pop_all()), set(shared.keys())
    assert 0 < len(popped) < count
    assert popped | left == set(range(count))
    assert not popped & left


def test_nothing_is_sent_to_a_dict_that_another_client_made_first(
    real_server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = b"of the one that was second" * 100_000  # large enough to be uploaded by itself
    mine = modal.Dict.from_name("contested", {**dict.fromkeys(range(6_000)), "last": value}, create_if_missing=True)
    unary = RpcClient.unary

    async def beaten(rpc: RpcClient, method: Any, request: Any, body: Any = b"", **options: Any) -> Any:
        if method is NAMED_GET:
            await unary(rpc, NAMED_GET, replace(request, entries=[]))
        return await unary(rpc, method, request, body, **options)

    monkeypatch.setattr(RpcClient, "unary", beaten)
    assert mine.len() == 0
    blobs = real_server.settings.data_dir / "blobs"
    assert hashlib.sha256(serialize(value)).hexdigest() not in {path.name for path in blobs.rglob("*")}
    modal.Dict.delete("contested")
