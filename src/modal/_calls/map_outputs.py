"""What `.map()` gives: outputs in order or as they come, unpickled in the caller's thread."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Generic, Optional, TypeVar

from .._runtime_context import current_input_id
from .._sync import is_async, on_loop
from ..exception import DeserializationError, InvalidError
from .feeder import Feeder, Source
from .payload import failure_of, pickle_arguments, result_of

T = TypeVar("T")


class Order(Generic[T]):
    """Puts outputs in the order of their inputs, or, when not `ordered`, lets them through as they come."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._next = 0
        self._held: dict[int, T] = {}

    def add(self, index: int, value: T) -> Iterator[T]:
        """Take one output; give those whose turn it is."""
        if not self._ordered:
            yield value
            return
        self._held[index] = value
        while self._next in self._held:
            self._next += 1
            yield self._held.pop(self._next - 1)


def zipped(iterables: Sequence[Any]) -> Source:
    """Argument tuples from one iterable per argument, blocking or async, up to the shortest.

    Raises:
        InvalidError: something is not iterable.
    """
    if not iterables:
        raise InvalidError("map needs an iterable for each argument of the function; it got none.")
    for one in iterables:
        if not hasattr(one, "__aiter__") and not hasattr(one, "__iter__"):
            raise InvalidError(f"map takes iterables, but got {one!r}; to call the function once use .remote().")
    # What can be iterated both ways, such as the outputs of another map, is taken the blocking way: it works anywhere.
    if all(hasattr(one, "__iter__") for one in iterables):
        return zip(*iterables)
    return _zip_async(iterables)


async def _zip_async(iterables: Sequence[Any]) -> AsyncIterator[tuple[Any, ...]]:
    async with contextlib.AsyncExitStack() as stack:
        sources = []
        for one in iterables:
            source = _as_async(one) if hasattr(one, "__iter__") else one.__aiter__()
            if hasattr(source, "aclose"):
                stack.push_async_callback(source.aclose)
            sources.append(source)
        while True:
            values = []
            for source in sources:
                try:
                    values.append(await source.__anext__())
                except StopAsyncIteration:
                    return
            yield tuple(values)


async def _as_async(iterable: Iterable[Any]) -> AsyncIterator[Any]:
    for value in iterable:
        yield value


def starred(iterable: Any) -> Source:
    """Argument tuples from an iterable of sequences.

    Raises:
        InvalidError: it is not iterable.
    """
    if hasattr(iterable, "__iter__"):
        return (_arguments(value) for value in iterable)
    if hasattr(iterable, "__aiter__"):
        return _star_async(iterable)
    raise InvalidError(f"starmap takes an iterable of argument sequences, not {iterable!r}.")


async def _star_async(iterable: Any) -> AsyncIterator[tuple[Any, ...]]:
    async for value in iterable:
        yield _arguments(value)


def _arguments(value: Any) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise InvalidError(f"starmap takes sequences of arguments, but an input is {value!r}.") from None


async def map_outputs(
    function: Any, source: Source, kwargs: dict[str, Any], ordered: bool, return_exceptions: bool
) -> AsyncGenerator[Any, None]:
    """Run the map of `function` over argument tuples; runs in the caller.

    Args:
        function: the `Function`: gives connection and id.
        source: argument tuples.
        kwargs: keyword arguments of every input.
        ordered: give outputs in the order of the inputs.
        return_exceptions: give failures as values instead of raising the first.
    """
    from .map_session import MapSession

    if not isinstance(kwargs, dict):
        raise InvalidError(f"kwargs must be a dict of keyword arguments, such as {{'timeout': 3}}, not {kwargs!r}.")
    kwargs = dict(kwargs)  # as it is now: inputs are made while the map runs
    name, by_value = function._tag, function._main_by_value
    feeder = Feeder(source, lambda args: pickle_arguments(name, args, kwargs, by_value))
    session = MapSession(function._bind, name, current_input_id() or "", feeder, function._method)
    try:
        await on_loop(session.begin())
        feeder.start(session.items_gathered, in_task=await is_async())
        order: Order[tuple[Any, bytes]] = Order(ordered)
        while True:
            answers = await on_loop(session.take())
            if not answers:
                return
            for output, payload in answers:
                for one, body in order.add(output.index, (output, payload)):
                    feeder.passed_on += 1
                    feeder.passed_bytes += one.size
                    if one.blob is not None:  # one at a time: each may be of gigabytes
                        body = await on_loop(session.payload(one, body))
                    value, error = _outcome(one, body)
                    if error is None:
                        yield value
                    elif return_exceptions and isinstance(error, Exception):
                        yield error
                    else:
                        raise error
            feeder.finished(0, 0, 0)  # the caller moved on: there may be room again
    finally:
        await on_loop(session.close())


def _outcome(output: Any, payload: bytes) -> tuple[Any, Optional[BaseException]]:
    from .map_session import succeeded

    if not succeeded(output):
        return None, failure_of(output, payload)
    try:
        return result_of(output, payload), None
    except DeserializationError as error:  # a result that cannot be unpickled here fails its own input only
        return None, error
