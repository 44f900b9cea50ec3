"""How a unary call ended, in the form in which it is sent and kept."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from modal._wire.codec import encode
from modal._wire.connection import Connection
from modal._wire.errors import GENERIC_FAILURE, TooLarge, WireError, is_typed, to_error_info
from modal._wire.messages.common import Empty, ErrorInfo, Method

logger = logging.getLogger("intermodal.rpc")


class Outcome(NamedTuple):
    """`error`, or a response message (JSON values) with its body."""

    message: Any = None
    body: bytes | memoryview = b""
    error: ErrorInfo | None = None

    def send(self, connection: Connection, id: int) -> None:
        """Complete call `id` with this."""
        if self.error is not None:
            connection.fail(id, self.error)
            return
        try:
            connection.reply(id, self.message, self.body)
        except TooLarge as error:
            connection.fail(id, to_error_info(error))
        except WireError as error:
            logger.error("a response cannot be sent", exc_info=error)
            connection.fail(id, ErrorInfo("InternalFailure", GENERIC_FAILURE))


def outcome_of(method: Method[Any, Any], result: Any) -> Outcome:
    """Make the outcome from what a handler returned: a response, or a response and its body."""
    body: bytes | memoryview = b""
    if type(result) is tuple and len(result) == 2:
        result, body = result
    if result is None and method.response is Empty:
        return Outcome({})
    try:
        if not isinstance(result, method.response):
            raise TypeError(f"the handler of {method.name} returned {type(result).__name__}")
        return Outcome(encode(result), body)
    except Exception as exc:  # the handler filled a field with something else than its type
        return failure_of(method, exc)


def failure_of(method: Method[Any, Any], exc: BaseException) -> Outcome:
    """Make the outcome from what a handler raised; the unexpected is logged with its traceback."""
    if not is_typed(exc):
        logger.error("%s failed", method.name, exc_info=exc)
    return Outcome(error=to_error_info(exc))


def outcome_of_future(method: Method[Any, Any], future: asyncio.Future[Any]) -> Outcome:
    """Make the outcome from a future that is done and not cancelled."""
    exc = future.exception()
    return outcome_of(method, future.result()) if exc is None else failure_of(method, exc)
