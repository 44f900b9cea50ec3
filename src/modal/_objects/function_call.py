"""`modal.functions.FunctionCall`: a call that was spawned, and `gather`."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Optional

from .._sync import blocking, generator_in_caller, in_caller, on_loop
from .._type_vars import ReturnType, T
from ..call_graph import tree_of
from ..exception import InvalidError, NotFoundError, ServerWarning, TimeoutError
from .client import current_environment
from .object import Object

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.call import GraphNode, Output
    from ..call_graph import InputInfo
    from .client import Client


class ResultNotReady(TimeoutError, builtins.TimeoutError):
    """`get` waited for its `timeout`. It is a `TimeoutError` of Python as well as one of `modal.exception`."""


class FunctionCall(Object, Generic[ReturnType]):
    """A reference to a call made by `Function.spawn`, to wait for, poll or cancel. It can be pickled and kept."""

    _client: Optional[Client] = None
    _is_generator = False
    _environment = ""  #: that the call must belong to; "": any, since we made it

    @classmethod
    def _of(cls, call_id: str, client: Optional[Client], is_generator: bool) -> FunctionCall[Any]:
        call: FunctionCall[Any] = cls._new(f"FunctionCall.from_id({call_id!r})")
        call._object_id = call_id
        call._client = client
        call._is_generator = is_generator
        return call

    @staticmethod
    def from_id(
        function_call_id: str, client: Optional[Client] = None, is_generator: bool = False
    ) -> FunctionCall[Any]:
        """Refer to a call by its `object_id`.

        Args:
            function_call_id: the id, ``fc-…``.
            client: the connection to use; default: that of the configuration.
            is_generator: the function is a generator: use `get_gen`.

        Raises:
            InvalidError: for what is not a string.
            NotFoundError: for the id of something else. An id that the server does not know, or knows in another
                environment than the configured one, is a NotFoundError when the call is used.
        """
        if not isinstance(function_call_id, str):
            raise InvalidError(f"A function call id is a string, not {function_call_id!r}.")
        if not function_call_id.startswith("fc-"):
            raise NotFoundError(f"There is no function call {function_call_id!r}; their ids begin with 'fc-'.")
        call = FunctionCall._of(function_call_id, client, bool(is_generator))
        call._environment = current_environment()
        return call

    @in_caller
    async def get(self, timeout: Optional[float] = None) -> ReturnType:
        """Wait for the result.

        Args:
            timeout: seconds to wait at most; 0 polls; None waits for ever.

        Raises:
            TimeoutError: there is no result yet (both Python's and that of `modal.exception`).
            OutputExpiredError: the result was kept for its retention time and is gone.
            NotFoundError: the server does not know the call.
            Exception: what the function raised.
        """
        from .._calls.payload import result_of

        if self._is_generator:
            raise InvalidError(f"{self.object_id} is the call of a generator: use get_gen().")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout < 0):
            raise InvalidError(f"timeout must be a number of seconds of at least 0, not {timeout!r}.")
        output, payload = await on_loop(self._get(timeout))
        if not payload and output.status.value == "success":  # it was deployed as one after this process looked it up
            raise InvalidError(f"{self.object_id} is the call of a generator: use get_gen().")
        result: ReturnType = result_of(output, payload)
        return result

    async def _get(self, timeout: Optional[float]) -> tuple[Output, bytes]:
        from .._calls.payload import fetch
        from .._wire.messages.call import CALL_GET, CallGet

        rpc, _ = await self._bind()
        try:
            output, body = await rpc.unary(CALL_GET, CallGet(self.object_id, timeout, environment=self._environment))
        except TimeoutError as error:
            if type(error) is not TimeoutError:
                raise  # such as OutputExpiredError
            raise ResultNotReady(str(error)) from None
        return output, await fetch(rpc, output.blob, body)

    @generator_in_caller()
    async def get_gen(self) -> AsyncGenerator[Any, None]:
        """Iterate over what a spawned generator yields.

        Raises:
            InvalidError: the call is not one of a generator.
            Exception: what the generator raised.
        """
        from .._calls.generator_session import generator_values

        values = generator_values(self._bind, None, call_id=self.object_id)
        try:
            async for value in values:
                yield value
        finally:
            await values.aclose()

    @in_caller
    async def get_call_graph(self) -> list[InputInfo]:
        """The inputs of this call (one, when it was spawned), each with the inputs that it called as its `children`.

        A graph has at most 10,000 inputs, those nearest to this call; a ServerWarning says when there are more.

        Raises:
            NotFoundError: the server does not know the call.
        """
        nodes, is_cut = await on_loop(self._graph())
        if is_cut:
            import warnings

            warnings.warn(
                f"The call graph of {self.object_id} has more inputs; these are {len(nodes)}.",
                ServerWarning,
                stacklevel=2,
            )
        return tree_of(nodes)

    async def _graph(self) -> tuple[list[GraphNode], bool]:
        from .._wire.messages.call import CALL_GRAPH, CallGraph

        rpc, _ = await self._bind()
        nodes: list[GraphNode] = []
        is_cut = False
        async with rpc.stream(CALL_GRAPH, CallGraph(self.object_id, self._environment)) as stream:
            async for part, _body in stream:
                nodes += part.nodes
                is_cut = part.is_cut
        return nodes, is_cut

    @in_caller
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel the call: inputs that run are interrupted, others never begin. A finished call stays as it is.

        Args:
            terminate_containers: kill the containers that run its inputs; their other inputs run again elsewhere.
        """
        await on_loop(self._cancel(terminate_containers))

    async def _cancel(self, terminate_containers: bool) -> None:
        from .._wire.messages.call import CALL_CANCEL, CallCancel

        rpc, _ = await self._bind()
        await rpc.unary(CALL_CANCEL, CallCancel(self.object_id, bool(terminate_containers), self._environment))

    async def _bind(self) -> tuple[RpcClient, str]:
        from .client import default_client

        return await (self._client or default_client())._rpc(), ""

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall._of, (self.object_id, None, self._is_generator)


async def _gather(*function_calls: FunctionCall[T]) -> Sequence[T]:
    """Wait for the results of several calls and return them in order.

    Raises:
        Exception: the failure of the first call that fails; the others go on.
        InvalidError: something else than calls was given.
    """
    from .resolver import together

    for call in function_calls:
        if not isinstance(call, FunctionCall):
            raise InvalidError(f"gather takes FunctionCall objects, as Function.spawn returns them, not {call!r}.")
    return await together(_result(call) for call in function_calls)


async def _result(call: FunctionCall[T]) -> T:
    from .._calls.payload import result_of

    output, payload = await call._get(None)
    result: T = result_of(output, payload)
    return result


gather = blocking(_gather)
