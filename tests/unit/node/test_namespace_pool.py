"""The pool of network namespaces, with a maker that makes pipes."""

from __future__ import annotations

import asyncio
import os
import threading
from ipaddress import IPv4Address, IPv4Network

import pytest

from intermodal.node.network.addresses import AddressPool
from intermodal.node.network.namespaces import NamespacePool, Namespaces


class SlowMaker:
    """Makes one when it may."""

    def __init__(self) -> None:
        self.made: list[Namespaces] = []
        self.may = threading.Event()

    def make(self, request: dict[str, str], address: IPv4Address | None = None) -> Namespaces:
        assert self.may.wait(10)
        self.made.append(Namespaces(*os.pipe(), address))
        return self.made[-1]


def make_pool(maker: SlowMaker) -> NamespacePool:
    return NamespacePool(maker, AddressPool(IPv4Network("10.1.0.0/24")), "im", 1, 1500)  # type: ignore[arg-type]


async def cancelled_take(pool: NamespacePool) -> None:
    taking = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking


async def test_one_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    maker = SlowMaker()
    pool = make_pool(maker)
    await cancelled_take(pool)
    maker.may.set()
    while not maker.made or pool._making:
        await asyncio.sleep(0.001)
    taken = await pool.take()
    assert taken is maker.made[0]
    pool.give_back(taken)
    await pool.close()


async def test_closing_waits_for_it_and_frees_it() -> None:
    maker = SlowMaker()
    pool = make_pool(maker)
    await cancelled_take(pool)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    assert not closing.done()
    maker.may.set()
    await closing
    for made in maker.made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(made.user)
