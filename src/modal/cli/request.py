"""Requests to the server, for commands that need no more than the reply."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

from .._wire.messages.common import Method

if TYPE_CHECKING:
    from .._objects.pulled import Pulled

Request = TypeVar("Request")
Response = TypeVar("Response")
T = TypeVar("T")


def ask(method: Method[Request, Response], request: Request) -> Response:
    """Send a request with the client of the configuration and return the reply."""
    from .. import _sync

    return _sync.run(_unary(method, request))


def pull(stream: Pulled[list[T]]) -> Generator[T, None, None]:
    """What is left of a stream, as it comes from the server. The caller may take its time with each."""
    from .. import _sync

    try:
        while part := _sync.run(stream.next()):
            yield from part
    finally:
        _sync.run(stream.close())


async def _unary(method: Method[Request, Response], request: Request) -> Response:
    from .._objects.client import default_client

    reply, _ = await (await default_client()._rpc()).unary(method, request)
    return reply
