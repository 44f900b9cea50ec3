"""What terminals and commands may look like, and how two directions run side by side."""

from __future__ import annotations

import asyncio

import pytest

from intermodal.control.container_service import check_command
from intermodal.control.terminals import check_window, until_first
from modal._wire.messages.terminal import WindowSize
from modal.exception import InvalidError


def test_sizes_of_windows() -> None:
    for rows, columns in ((0, 0), (24, 80), (65_535, 65_535)):
        check_window(WindowSize(rows, columns))
    for rows, columns in ((-1, 80), (24, -1), (65_536, 80), (24, 2**40)):
        with pytest.raises(InvalidError, match="cannot be"):
            check_window(WindowSize(rows, columns))


def test_commands_up_to_the_limits() -> None:
    check_command(["true"], {})
    check_command(["true", "", "x" * 100_000], {"NAME": ""})
    check_command(["true"] * 4000, {"A": "="})
    with pytest.raises(InvalidError, match="too long"):
        check_command(["true", "ü" * 70_000], {})


async def never() -> None:
    await asyncio.Event().wait()


async def test_the_first_one_decides() -> None:
    ended = []

    async def other() -> None:
        try:
            await never()
        finally:
            ended.append("other")

    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    async def brief() -> None:
        return

    assert await until_first(main(), other(), brief()) == 7
    assert ended == ["other"]


async def test_an_error_of_any_ends_all() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await until_first(never(), fails())
    with pytest.raises(ValueError, match="no"):
        await until_first(fails(), never())


async def test_cancelling_ends_all() -> None:
    ended = []

    async def side() -> None:
        try:
            await never()
        finally:
            ended.append("side")

    task = asyncio.create_task(until_first(never(), side()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["side"]
