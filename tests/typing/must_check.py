"""Uses of the API that must type-check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Optional

from typing_extensions import assert_type

import modal
from modal._sync import Stream
from modal.call_graph import InputInfo, InputStatus
from modal.functions import FunctionStats, gather

app = modal.App("typed")


@app.function(cpu=1.0, retries=modal.Retries(max_retries=2))
def add(x: int, y: str = "") -> float:
    return x + len(y)


@app.function()
async def fetch(url: str) -> bytes:
    return url.encode()


@app.function(timeout=5, max_inputs=1, retries=3)
def count_up(n: int) -> Iterator[int]:
    yield from range(n)


@app.cls(cpu=1.0, allow_concurrent_inputs=2)
class Model:
    count: int = modal.parameter(init=False)

    @modal.enter()
    def start(self) -> None:
        self.count = 1

    @modal.enter(snap=True)
    async def start_early(self) -> None: ...

    @modal.method()
    def predict(self, x: int, y: str = "") -> float:
        assert_type(self.name(1), str)
        assert_type(self.name.local(1), str)
        assert_type(self.name.remote(1), str)
        self.start()
        return x + self.count

    @modal.method()
    def name(self, x: int) -> str:
        return str(x)

    @modal.method()
    async def fetch(self, url: str) -> bytes:
        return url.encode()

    @modal.method(is_generator=True)
    def values(self, n: int) -> Iterator[int]:
        yield from range(n)

    @modal.batched(max_batch_size=2, wait_ms=10)
    def batch(self, xs: list[int]) -> list[int]:
        return xs

    @modal.exit()
    def stop(self) -> None: ...


def use_model() -> None:
    model = Model()
    assert_type(model.predict.remote(1, y="a"), float)
    assert_type(model.predict.local(1), float)
    assert_type(model.fetch.remote("x"), bytes)
    assert_type(model.predict.spawn(1), modal.FunctionCall[float])
    assert_type(model.values.remote_gen(3), Stream[Any])
    assert_type(model.count, int)
    for value in model.predict.map([1, 2]):
        print(value)
    cls = modal.Cls.from_name("app", "Model")
    assert_type(cls.with_options(cpu=2.0, timeout=3), modal.Cls)
    assert_type(modal.Cls.lookup("app", "Model", environment_name="main"), modal.Cls)
    cls(size=3).predict.remote(1)
    assert_type(cls.hydrate(), modal.Cls)


async def use_model_async() -> None:
    model = Model()
    assert_type(await model.predict.remote.aio(1), float)
    assert_type(await model.fetch.local("x"), bytes)


@app.local_entrypoint()
def main(count: int = 3) -> None:
    assert_type(add.remote(1), float)
    assert_type(add.remote(1, y="a"), float)
    assert_type(add.local(1), float)
    assert_type(fetch.remote("x"), bytes)
    call = add.spawn(1)
    assert_type(call, modal.FunctionCall[float])
    assert_type(call.get(timeout=1), float)
    gather(call, add.spawn(2))
    for value in add.map([1, 2], order_outputs=False):
        print(value)
    with app.run() as running:
        assert_type(running, modal.App)
    for value in add.starmap([(1, "a")], kwargs={"y": "b"}, return_exceptions=True):
        print(value)
    assert_type(add.for_each([1], ["a"], ignore_exceptions=True), None)
    assert_type(count_up.remote_gen(3), Stream[Any])
    assert_type(add.get_raw_f()(1), float)
    assert_type(add.get_current_stats(), FunctionStats)
    assert_type(add.get_current_stats().backlog, int)
    assert_type(add.keep_warm(2), None)
    assert_type(call.cancel(terminate_containers=True), None)
    assert_type(call.get_call_graph(), list[InputInfo])
    assert_type(call.get_call_graph()[0].status, InputStatus)
    assert_type(call.hydrate(), modal.FunctionCall[float])
    assert_type(modal.current_input_id(), Optional[str])
    assert_type(gather(call, call), Sequence[float])
    for item in modal.FunctionCall.from_id("fc-1", is_generator=True).get_gen():
        print(item)
    identifier: Optional[str] = app.app_id
    print(identifier, add.object_id, count)


async def main_async() -> None:
    assert_type(await add.remote.aio(1), float)
    assert_type(await fetch.local("x"), bytes)
    call = await fetch.spawn.aio("x")
    assert_type(await call.get.aio(), bytes)
    async for value in add.map.aio([1]):
        print(value)
    async for value in add.map([1]):
        print(value)
    async for value in add.starmap.aio([(1, "a")]):
        print(value)
    async for value in count_up.remote_gen.aio(3):
        print(value)
    await add.for_each.aio([1])
    await add.keep_warm.aio(1)
    assert_type(await add.get_current_stats.aio(), FunctionStats)
    assert_type(await gather.aio(call, call), Sequence[bytes])
    assert_type(await call.get_call_graph.aio(), list[InputInfo])
    await call.cancel.aio(terminate_containers=True)
    async with app.run():
        pass


main(count=4)
