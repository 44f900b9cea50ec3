"""Uses of the API that must type-check."""

from __future__ import annotations

from typing import Optional

from typing_extensions import assert_type

import modal
from modal.functions import gather

app = modal.App("typed")


@app.function(cpu=1.0, retries=modal.Retries(max_retries=2))
def add(x: int, y: str = "") -> float:
    return x + len(y)


@app.function()
async def fetch(url: str) -> bytes:
    return url.encode()


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
    async with app.run():
        pass


main(count=4)
