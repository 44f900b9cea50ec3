"""One request to the server, for commands that need no more."""

from __future__ import annotations

from typing import TypeVar

from .._wire.messages.common import Method

Request = TypeVar("Request")
Response = TypeVar("Response")


def ask(method: Method[Request, Response], request: Request) -> Response:
    """Send a request with the client of the configuration and return the reply."""
    from .. import _sync

    return _sync.run(_unary(method, request))


async def _unary(method: Method[Request, Response], request: Request) -> Response:
    from .._objects.client import default_client

    reply, _ = await (await default_client()._rpc()).unary(method, request)
    return reply
