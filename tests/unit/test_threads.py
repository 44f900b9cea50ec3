"""`in_thread`: what is done in a thread has ended when its caller goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from intermodal.threads import in_thread


async def test_it_gives_what_the_work_gives() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_arrives_after_the_end_of_the_work(fails: bool) -> None:
    begun, may_end, events = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        may_end.wait(10)
        events.append("ended")
        if fails:
            raise OSError("it fails")

    async def caller() -> None:
        try:
            await in_thread(work)
        except BaseException as error:
            events.append(type(error).__name__)
            raise

    task = asyncio.create_task(caller())
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
        assert events == []
    may_end.set()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert events == ["ended", "CancelledError"]
