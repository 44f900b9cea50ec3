"""`modal.Function`: a function that runs in containers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional

from .. import _event_loop
from .._renamed import renamed_parameter
from .._runtime_context import container_context, current_input_id
from .._sync import blocking, generator_in_caller, in_caller, is_async, on_loop
from .._type_vars import OriginalReturnType, P, ReturnType, T
from ..exception import InvalidError, NotFoundError
from .function_call import FunctionCall
from .function_options import FunctionOptions
from .object import Object

if TYPE_CHECKING:
    from .._calls.direct import DirectPath
    from .._wire.client import RpcClient
    from .._wire.messages.call import Output
    from .._wire.messages.function import ClassSpec
    from .app import App
    from .client import Client
    from .resolver import Resolver

_NOT_CONSUMED = (
    "The outputs of Function.{0} were never asked for, so nothing runs: iterate over them, or use Function.for_each."
)


@dataclass(frozen=True)
class FunctionReference:
    """A function of a deployed app, by names."""

    app_name: str
    name: str
    environment: Optional[str]


@dataclass(frozen=True)
class FunctionStats:
    """The state of a function's containers."""

    backlog: int  #: inputs that wait for a container
    num_total_runners: int  #: containers that run


@renamed_parameter("tag", "name")
async def _lookup(
    app_name: str,
    name: str,
    namespace: Any = None,
    client: Optional[Client] = None,
    environment_name: Optional[str] = None,
) -> Function[Any, Any, Any]:
    """Find a function of a deployed app, at once; else as `from_name`.

    Args:
        app_name: the name that the app is deployed as.
        name: the function's name in the app.
        namespace: no effect.
        client: the connection to use; default: that of the configuration.
        environment_name: the environment of the app; default: as for `from_name`.

    Raises:
        NotFoundError: there is no such app or function; the message says which there are.
    """
    function = Function.from_name(app_name, name, environment_name=environment_name)
    await function._bind(client)
    return function


class Function(Object, Generic[P, ReturnType, OriginalReturnType]):
    """A function that runs in containers, and scales with its inputs.

    Made by decorating a function with `@app.function()`. In a running app, call it with `remote`, `map`, `spawn` and
    their kin; `local` calls the Python function itself. Every blocking method has an async form, as in
    ``await f.remote.aio(1)``.
    """

    _raw_f: Optional[Callable[..., Any]] = None
    _tag: str = ""
    _options: FunctionOptions
    _is_generator = False
    _web_url = ""
    _main_by_value = False
    _client: Optional[Client] = None
    _rpc: Optional[RpcClient] = None  #: set while calls can be made
    _generation = 0  #: of the event loop that `_rpc` belongs to
    _direct: Optional[DirectPath] = None  #: for blocking calls from outside of containers
    _app: Optional[App] = None  #: the app it was registered with
    _reference: Optional[FunctionReference] = None  #: where to find it, when it was not defined in this process
    _resolver: Optional[Resolver] = None  #: of what is made while the app runs
    _owner = ""  #: the app that a function which was looked up belongs to
    _method = ""  #: set for a method of a class
    _cls_spec: Optional[ClassSpec] = None  #: set for a class

    @classmethod
    def _of(
        cls, raw_f: Callable[..., Any], tag: str, options: FunctionOptions, is_generator: bool
    ) -> Function[Any, Any, Any]:
        function: Function[Any, Any, Any] = cls._new(f"Function {tag}")
        function._raw_f = raw_f
        function._tag = tag
        function._options = options
        function._is_generator = is_generator
        # Containers of a script have its classes; containers of other functions do not have this `__main__`.
        function._main_by_value = options.serialized or raw_f.__module__ != "__main__"
        return function

    # -- identity

    @property
    def is_generator(self) -> bool:
        """Whether it yields values: call it with `remote_gen`."""
        if self._is_unknown:
            self.hydrate()
        return self._is_generator

    @property
    def web_url(self) -> str:
        """The URL of a web endpoint. Raises InvalidError for a function that is none."""
        if self._is_unknown:
            self.hydrate()
        if not self._web_url:
            raise InvalidError(f"{self._what} is no web endpoint, so it has no URL.")
        return self._web_url

    lookup = blocking(_lookup)

    @classmethod
    @renamed_parameter("tag", "name")
    def from_name(
        cls, app_name: str, name: str, namespace: Any = None, environment_name: Optional[str] = None
    ) -> Function[Any, Any, Any]:
        """Refer to a function of a deployed app; it is looked up when it is first used.

        The reference stays good when the app is deployed again: calls go to the version in force.

        Args:
            app_name: the name that the app is deployed as.
            name: the function's name in the app.
            namespace: no effect.
            environment_name: the environment of the app; default: that of the configuration, or in a container that of
                its app.

        Raises:
            InvalidError: a name is no string, or empty.
        """
        for what, value in (("app_name", app_name), ("name", name)):
            if not isinstance(value, str) or not value:
                raise InvalidError(f"Function.from_name: {what} must be a string that is not empty, not {value!r}.")
        function: Function[Any, Any, Any] = cls._new(f"Function.from_name({app_name!r}, {name!r})")
        function._tag = name
        function._reference = FunctionReference(app_name, name, environment_name)
        function._main_by_value = True  # its containers do not have the `__main__` of this process
        return function

    async def _hydrate(self, client: Optional[Client]) -> None:
        await self._bind(client)

    async def _bind(self, client: Optional[Client] = None) -> tuple[RpcClient, str]:
        """The connection and the id to call with; on the bridge's loop.

        Raises:
            InvalidError: the function's app is not running.
            NotFoundError: in a container: the running app has no such function.
        """
        if self._rpc is not None and self._object_id is not None and self._generation == _event_loop.generation:
            return self._rpc, self._object_id
        if self._reference is not None:
            return await self._look_up(self._reference, client)
        context = container_context()
        if context is None and self._client is None:
            kind = "function" if self._cls_spec is None else "class"
            raise InvalidError(
                f"The {kind} {self._tag!r} cannot be called since its app is not running: call it inside "
                "`with app.run():`, or start the program with `modal run`."
            )
        if context is not None and self._object_id is None:
            function_id = context.objects.get(self._tag) or await self._published(context.app_id)
            if not function_id:
                known = ", ".join(sorted(context.objects)) or "none"
                raise NotFoundError(
                    f"The running app has no function {self._tag!r}; it has {known}. Was it registered only locally?"
                )
            self._object_id = function_id
        from .client import default_client

        self._rpc = await (client or self._client or default_client())._rpc()
        self._generation = _event_loop.generation
        return self._rpc, self.object_id

    async def _look_up(self, reference: FunctionReference, client: Optional[Client]) -> tuple[RpcClient, str]:
        from .._wire.messages.function import FUNCTION_LOOKUP, FunctionLookup
        from .client import current_environment, default_client

        self._client = client or self._client or default_client()
        rpc = await self._client._rpc()
        environment = current_environment(reference.environment)
        found, _ = await rpc.unary(FUNCTION_LOOKUP, FunctionLookup(reference.app_name, reference.name, environment))
        self._is_generator, self._method, self._cls_spec = found.is_generator, found.method, found.cls
        self._owner = found.app_id
        self._attach(rpc, found.function_id, found.web_url)
        return rpc, found.function_id

    @property
    def _is_unknown(self) -> bool:
        """Whether it has to be looked up before anything is known of it."""
        return self._reference is not None and self._object_id is None

    async def _known(self, anew: bool = False) -> None:
        """Look it up if it has to be; `anew`: also when that was done before."""
        if self._reference is not None and (anew or self._object_id is None):
            await on_loop(self._look_up(self._reference, None))

    async def _following(self, request: Callable[[bytes, str], Awaitable[T]], payload: bytes, parent: str) -> T:
        """Make a request; once more if the names mean another function by now: its app was stopped and made again."""
        if self._reference is None:
            return await request(payload, parent)
        before = self._object_id
        try:
            return await request(payload, parent)
        except NotFoundError as error:
            try:
                _, found = await self._look_up(self._reference, None)
            except NotFoundError:
                raise error from None  # which says when it went
            if found == before:
                raise
            return await request(payload, parent)

    async def _published(self, app_id: str) -> str:
        """Ask the server: a container that started early may not have been told of every function."""
        from .._wire.messages.app import APP_OBJECTS, AppRef
        from .client import default_client

        reply, _ = await (await default_client()._rpc()).unary(APP_OBJECTS, AppRef(app_id))
        return reply.functions.get(self._tag, "")

    def _app_id(self) -> str:
        """The app that it belongs to at the server; "" when that is not known."""
        context = container_context()
        app_id = self._app.app_id if self._app is not None else None
        return self._owner or app_id or (context.app_id if context is not None else "")

    def _lasting_resolver(self, rpc: RpcClient) -> Resolver:
        """Loads objects for this function's app, each once as long as the app runs."""
        from .resolver import Resolver

        app_id = self._app_id()
        if self._resolver is None or self._resolver.client is not rpc or self._resolver.app_id != app_id:
            self._resolver = Resolver(rpc, app_id)
        return self._resolver

    async def _load(self, resolver: Resolver) -> str:
        raise InvalidError(f"{self._what} is loaded by its app only.")

    def _attach(self, rpc: RpcClient, function_id: str, web_url: str) -> None:
        """The app runs: calls can be made."""
        self._rpc, self._object_id, self._web_url = rpc, function_id, web_url
        self._generation = _event_loop.generation

    def _detach(self) -> None:
        """The app has ended."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        self._rpc, self._object_id, self._web_url, self._client = None, None, "", None

    # -- calls

    def _payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        from .._calls.payload import pickle_arguments

        return pickle_arguments(self._tag, args, kwargs, self._main_by_value)

    @in_caller
    async def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ReturnType:
        """Call the function in a container and return its result.

        Raises:
            Exception: what the function raised, with the remote frames in its traceback.
            InvalidError: the app is not running, or the function is a generator.
            SerializationError: an argument cannot be pickled.
            FunctionTimeoutError: it ran longer than its `timeout`.
            ExecutionError: its container could not start or died.
        """
        from .._calls.payload import result_of

        await self._known()
        if self._is_generator:
            raise InvalidError(f"The function {self._tag!r} is a generator: call it with remote_gen().")
        payload = self._payload(args, kwargs)
        if container_context() is not None or await is_async():
            answer = await on_loop(self._run_anywhere(payload, current_input_id() or ""))
        else:
            answer = await self._direct_path().call(payload, self._run_anywhere, self._client_of_calls)
        result: ReturnType = result_of(*answer)
        return result

    def _direct_path(self) -> DirectPath:
        path = self._direct
        if path is None or path.generation != _event_loop.generation or path.function_id != self._object_id:
            from .._calls.direct import DirectPath

            if path is not None:
                path.close()
            path = self._direct = DirectPath(self._object_id or "", self._method)
        return path

    async def _client_of_calls(self) -> RpcClient:
        return (await self._bind())[0]

    async def _run_anywhere(self, payload: bytes, parent: str = "") -> tuple[Output, bytes]:
        return await self._following(self._run, payload, parent)

    async def _run(self, payload: bytes, parent: str) -> tuple[Output, bytes]:
        from .._calls.payload import as_input, fetch
        from .._wire.messages.call import CALL_RUN, CallRun

        rpc, function_id = await self._bind()
        record, body = await as_input(rpc, 0, payload)
        output, data = await rpc.unary(CALL_RUN, CallRun(function_id, record, parent, self._method), body)
        return output, data if output.blob is None else await fetch(rpc, output.blob, data)

    @generator_in_caller()
    async def remote_gen(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        """Call the generator in a container and iterate over what it yields, with `for` or `async for`.

        Raises:
            Exception: what the generator raised.
            InvalidError: the app is not running, or the function is no generator.
        """
        from .._calls.generator_session import generator_values

        await self._known(anew=True)
        if not self._is_generator:
            raise InvalidError(f"The function {self._tag!r} is no generator: call it with remote().")
        payload = self._payload(args, kwargs)
        values = generator_values(self._bind, payload, current_input_id() or "", method=self._method)
        try:
            async for value in values:
                yield value
        finally:
            await values.aclose()

    def local(self, *args: P.args, **kwargs: P.kwargs) -> OriginalReturnType:
        """Call the Python function itself, in this process."""
        result: OriginalReturnType = self.get_raw_f()(*args, **kwargs)
        return result

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> OriginalReturnType:
        """Raises InvalidError: say whether you mean `remote` or `local`."""
        raise InvalidError(
            f"{self._tag!r} cannot be called directly: use {self._tag}.remote(...) to run it in a container "
            f"or {self._tag}.local(...) to run it here."
        )

    @in_caller
    async def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[ReturnType]:
        """Start the function in a container and return at once, when the server has the call on disk.

        Returns:
            The call, whose `get` waits for the result.
        """
        await self._known()
        call_id = await on_loop(self._following(self._spawn, self._payload(args, kwargs), current_input_id() or ""))
        return FunctionCall._of(call_id, self._client, self._is_generator)

    async def _spawn(self, payload: bytes, parent: str) -> str:
        from .._calls.payload import as_input
        from .._wire.messages.call import CALL_SPAWN, CallSpawn

        rpc, function_id = await self._bind()
        record, body = await as_input(rpc, 0, payload)
        reply, _ = await rpc.unary(CALL_SPAWN, CallSpawn(function_id, record, parent, self._method), body)
        return reply.call_id

    @generator_in_caller(_NOT_CONSUMED.format("map"))
    async def map(
        self,
        *input_iterators: Iterable[Any],
        kwargs: dict[str, Any] = {},  # noqa: B006
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Call the function for many inputs side by side, and iterate over the outputs with `for` or `async for`.

        Inputs are consumed lazily, some thousands ahead of the outputs. Leaving the loop early cancels the rest.

        Args:
            input_iterators: one iterable, blocking or async, for each argument of the function.
            kwargs: keyword arguments of every call.
            order_outputs: give outputs in the order of the inputs; False: as they complete.
            return_exceptions: give a failure as an output instead of raising the first one.

        Raises:
            Exception: what the function raised for an input, unless `return_exceptions`.
            InvalidError: the app is not running, or the function is a generator.
        """
        from .._calls.map_outputs import map_outputs, zipped

        await self._check_mappable()
        outputs = map_outputs(self, zipped(input_iterators), kwargs, order_outputs, return_exceptions)
        try:
            async for value in outputs:
                yield value
        finally:
            await outputs.aclose()

    @generator_in_caller(_NOT_CONSUMED.format("starmap"))
    async def starmap(
        self,
        input_iterator: Iterable[Sequence[Any]],
        kwargs: dict[str, Any] = {},  # noqa: B006
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Like `map`, but each input is a sequence of the function's arguments."""
        from .._calls.map_outputs import map_outputs, starred

        await self._check_mappable()
        outputs = map_outputs(self, starred(input_iterator), kwargs, order_outputs, return_exceptions)
        try:
            async for value in outputs:
                yield value
        finally:
            await outputs.aclose()

    @in_caller
    async def for_each(
        self,
        *input_iterators: Iterable[Any],
        kwargs: dict[str, Any] = {},  # noqa: B006
        ignore_exceptions: bool = False,
    ) -> None:
        """Like `map`, for the effect of the calls: waits until all are done and drops the outputs.

        Args:
            input_iterators: one iterable for each argument of the function.
            kwargs: keyword arguments of every call.
            ignore_exceptions: go on when calls fail.
        """
        from .._calls.map_outputs import map_outputs, zipped

        await self._check_mappable()
        outputs = map_outputs(self, zipped(input_iterators), kwargs, False, ignore_exceptions)
        try:
            async for _ in outputs:
                pass
        finally:
            await outputs.aclose()

    async def _check_mappable(self) -> None:
        await self._known(anew=True)
        if self._is_generator:
            raise InvalidError(
                f"The function {self._tag!r} is a generator: it can be called with remote_gen, not mapped."
            )

    # -- the rest

    def get_raw_f(self) -> Callable[P, OriginalReturnType]:
        """The Python function that was decorated."""
        if self._raw_f is None:
            raise InvalidError(f"The Python code of {self._what} is not in this process.")
        return self._raw_f

    @in_caller
    async def get_current_stats(self) -> FunctionStats:
        """How many inputs wait and how many containers run."""
        backlog, runners = await on_loop(self._stats())
        return FunctionStats(backlog, runners)

    async def _stats(self) -> tuple[int, int]:
        from .._wire.messages.function import FUNCTION_STATS, FunctionRef

        rpc, function_id = await self._bind()
        stats, _ = await rpc.unary(FUNCTION_STATS, FunctionRef(function_id))
        return stats.backlog, stats.num_total_runners

    @in_caller
    async def keep_warm(self, warm_pool_size: int) -> None:
        """Set how many containers are kept ready while the app runs, instead of what `@app.function()` said.

        Args:
            warm_pool_size: from 0 to 10,000; at most the function's `concurrency_limit`.

        Raises:
            InvalidError: it is out of that range, or the app is not running.
        """
        await on_loop(self._keep_warm(check_pool_size(warm_pool_size)))

    async def _keep_warm(self, containers: int) -> None:
        from .._wire.messages.function import FUNCTION_KEEP_WARM, FunctionKeepWarm

        rpc, function_id = await self._bind()
        await rpc.unary(FUNCTION_KEEP_WARM, FunctionKeepWarm(function_id, containers))

    def __get__(self, obj: Any, owner: Any = None) -> Function[P, ReturnType, OriginalReturnType]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reference is not None:
            reference = self._reference
            return Function.from_name, (reference.app_name, reference.name, None, reference.environment)
        return _by_tag, (self._tag, self._is_generator, self._main_by_value, self._object_id, self._cls_spec)


def check_pool_size(size: Any) -> int:
    """Raises InvalidError unless it is a number of containers to keep warm."""
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= 10_000:
        raise InvalidError(f"warm_pool_size must be a whole number from 0 to 10000, not {size!r}.")
    return int(size)


def _by_tag(
    tag: str, is_generator: bool, main_by_value: bool, function_id: Optional[str], cls_spec: Optional[ClassSpec] = None
) -> Function[Any, Any, Any]:
    """Make a function that was pickled: a reference, without the Python code."""
    function: Function[Any, Any, Any] = Function._new(f"Function {tag}")
    function._tag, function._is_generator, function._main_by_value = tag, is_generator, main_by_value
    function._object_id, function._cls_spec = function_id, cls_spec
    if function_id is not None and container_context() is None:
        from .client import default_client

        function._client = default_client()
    return function
