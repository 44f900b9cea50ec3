"""Relays a terminal, or a command's pipes, over a stream. Neither direction keeps more than one piece in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from intermodal.control.rpc import ServerStream
from intermodal.node.interface import Exec
from modal._wire.messages.terminal import OutputStream, TerminalInput, TerminalOutput, WindowSize
from modal.exception import InvalidError

Result = TypeVar("Result")
_WINDOW_LIMIT = 65_535  # rows or columns: what the kernel can hold


def check_window(window: WindowSize) -> None:
    """Raise `InvalidError` for a size that no terminal has."""
    if not (0 <= window.rows <= _WINDOW_LIMIT and 0 <= window.columns <= _WINDOW_LIMIT):
        raise InvalidError(f"A terminal of {window.rows} rows and {window.columns} columns cannot be.")


async def serve_command(command: Exec, stream: ServerStream[TerminalOutput, TerminalInput]) -> int:
    """Connect a command with its caller until it has ended and all of its output is sent; return its exit code."""

    async def run() -> int:
        await asyncio.gather(*(_send_output(command, name, stream) for name in command.streams))
        return await command.wait()

    return await until_first(run(), _feed(command, stream))


async def _send_output(command: Exec, name: OutputStream, stream: ServerStream[TerminalOutput, TerminalInput]) -> None:
    while data := await command.read(name):
        await stream.send(TerminalOutput(name), data)


async def _feed(command: Exec, stream: ServerStream[TerminalOutput, TerminalInput]) -> None:
    async for message, data in stream:
        if message.window is not None:
            check_window(message.window)
            command.resize(message.window)
        if data:
            await command.write(data)
        if message.eof:
            await command.end_input()
    await command.end_input()


async def until_first(main: Coroutine[Any, Any, Result], *others: Coroutine[Any, Any, None]) -> Result:
    """Run coroutines side by side until `main` is done, and return its result; if another raises, so does this.

    None of them runs any more when this returns.
    """
    first = asyncio.ensure_future(main)
    tasks: set[asyncio.Future[Any]] = {first, *map(asyncio.ensure_future, others)}
    pending = tasks
    try:
        while not first.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return first.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
