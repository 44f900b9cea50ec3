"""Payloads and outputs: what travels inline, what as a blob, and what an output means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from .._serialization import deserialize, deserialize_failure, serialize
from .._wire.messages.call import INLINE_LIMIT, PAYLOAD_LIMIT, Input, Output, Status
from ..exception import (
    ExecutionError,
    FunctionTimeoutError,
    InternalFailure,
    RemoteError,
    RequestSizeError,
    SerializationError,
)

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.blob import BlobRef

#: What an output without any payload or error means.
_BARE = {
    Status.TIMEOUT: (FunctionTimeoutError, "The function ran longer than its timeout."),
    Status.TERMINATED: (RemoteError, "The function call was cancelled."),
    Status.INIT_FAILURE: (ExecutionError, "The container could not start."),
    Status.INTERNAL_FAILURE: (InternalFailure, "The container died while it ran this input."),
}


def pickle_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], main_by_value: bool) -> bytes:
    """The payload of a call of the function `name`.

    Raises:
        SerializationError: an argument cannot be pickled; the message says which.
        RequestSizeError: the payload is too large to travel at all.
    """
    try:
        payload = serialize((args, kwargs), main_by_value=main_by_value)
    except SerializationError as error:
        raise _name_culprit(name, args, kwargs, error) from error.__cause__
    if len(payload) > PAYLOAD_LIMIT:
        raise RequestSizeError(
            f"The arguments of {name} take {len(payload)} bytes pickled, over the limit of {PAYLOAD_LIMIT >> 30} GiB; "
            "put large data in a Volume and pass its path."
        )
    return payload


def _name_culprit(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: SerializationError) -> Exception:
    """The error of the first argument that cannot be pickled by itself."""
    named = [(f"argument {number} of {name}", value) for number, value in enumerate(args, 1)]
    named += [(f"argument {key!r} of {name}", value) for key, value in kwargs.items()]
    for what, value in named:
        try:
            serialize(value)
        except SerializationError as own:
            return SerializationError(f"The {what} cannot be sent to a container. {own}")
    return error


async def as_input(rpc: RpcClient, index: int, payload: bytes) -> tuple[Input, bytes]:
    """The input record of a payload and what travels beside it; a large payload is uploaded first."""
    if len(payload) <= INLINE_LIMIT:
        return Input(index, len(payload)), payload
    from .._upload import upload_bytes

    return Input(index, 0, await upload_bytes(rpc, payload)), b""


async def fetch(rpc: RpcClient, blob: Optional[BlobRef], body: bytes) -> bytes:
    """The payload, wherever it is."""
    if blob is None:
        return body
    from .._upload import download_bytes

    return await download_bytes(rpc, blob)


def result_of(output: Output, payload: bytes) -> Any:
    """Return the value of an output, or raise the failure that it is.

    Raises:
        BaseException: what the function raised, or an Error that says why there is no result.
    """
    if output.status is Status.SUCCESS:
        return deserialize(payload)
    raise failure_of(output, payload)


def failure_of(output: Output, payload: bytes) -> BaseException:
    """The failure that an unsuccessful output is."""
    if payload:
        return deserialize_failure(payload)
    if output.error is not None:
        from .._wire.errors import from_error_info

        return from_error_info(output.error)
    cls, message = _BARE.get(output.status, (RemoteError, "The function failed without saying why."))
    return cls(message)
