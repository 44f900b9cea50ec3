"""Is a server running on a data directory, and what does it say of itself?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TypeVar

from intermodal.model.ids import new_id
from intermodal.settings import Settings
from modal._wire.client import RpcClient
from modal._wire.messages.common import Empty, Method
from modal._wire.messages.server import SERVER_INFO, ServerInfo
from modal.exception import ConnectionError, TimeoutError

Request = TypeVar("Request")
Response = TypeVar("Response")
ANSWER_TIMEOUT = 10.0  #: seconds a server has to answer


def holder(settings: Settings) -> int | None:
    """The pid of the server that holds the data directory; 0 when it does not say; None when none holds it.

    The kernel's list of locks is read instead of trying the lock, which could make a server fail that starts just now.
    """
    try:
        lock = (settings.run_dir / "server.lock").stat()
        with open("/proc/locks") as table:
            owners = [(int(f[4]), f[5]) for f in map(str.split, table) if f[1:4] == ["FLOCK", "ADVISORY", "WRITE"]]
    except OSError:
        return None
    owners = [(pid, file) for pid, file in owners if file.rpartition(":")[2] == str(lock.st_ino)]
    with contextlib.suppress(OSError, ValueError):
        recorded = int(settings.pid_file.read_text())
        if recorded in [pid for pid, _ in owners]:
            return recorded
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}"
    return 0 if any(file.rpartition(":")[0] == device for _, file in owners) else None


def ask(settings: Settings) -> ServerInfo | None:
    """What the server on this data directory says of itself; None when none answers.

    Raises:
        Error: one answers, but refuses or takes too long.
    """
    return asyncio.run(_ask(settings)) if settings.socket.exists() else None


async def _ask(settings: Settings) -> ServerInfo | None:
    try:
        return await request(settings, SERVER_INFO, Empty(), ANSWER_TIMEOUT)
    except TimeoutError as error:
        raise TimeoutError(
            f"The server on {settings.data_dir} does not answer within {ANSWER_TIMEOUT:.0f} seconds. "
            "Look into its log, or stop it with `intermodal down --force`."
        ) from error
    except ConnectionError:
        return None


async def request(
    settings: Settings, method: Method[Request, Response], message: Request, timeout: float | None
) -> Response:
    """One request to the server on this data directory.

    Raises:
        ConnectionError: none answers.
        TimeoutError: it takes longer than `timeout` seconds.
    """
    client = RpcClient(
        f"unix://{settings.socket}",
        session=new_id("se", random.SystemRandom()),
        connect_timeout=0,
        reconnect_timeout=0,
    )
    try:
        await client.open()
        reply, _ = await client.unary(method, message, timeout=timeout)
        return reply
    finally:
        await client.close()
