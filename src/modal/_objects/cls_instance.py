"""What calling a class gives: one set of parameters, whose methods can be called."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Awaitable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .._runtime_context import container_context
from .._sync import in_caller, on_loop
from ..exception import NotFoundError
from . import user_class
from .function import Function, check_pool_size
from .partial_function import LINK

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.function import ClassSpec
    from .client import Client
    from .cls import Cls

T = TypeVar("T")
#: Seconds until the server is asked again for the function of a set of parameters, which it forgets when unused.
_BIND_AGAIN = 600.0
_FOR_EVER = float("inf")  # what a container serves does not change


class Instance:
    """An instance of a class that was decorated with `@app.cls()`.

    Its methods are functions: call them with `remote`, `map`, `spawn`, `local` and their kin. Other attributes are
    those of an instance of the user's class, which is made in this process when one is first asked for.
    """

    _modal_cls: Cls
    _modal_args: tuple[Any, ...]
    _modal_kwargs: dict[str, Any]

    def __init__(self, cls: Cls, args: tuple[Any, ...], kwargs: dict[str, Any], packed: Optional[bytes] = None) -> None:
        state = self.__dict__
        state["_modal_cls"] = cls
        state["_modal_args"] = args
        state["_modal_kwargs"] = kwargs
        state["_modal_packed"] = packed  # the parameters as they travel
        state["_modal_methods"] = {}
        state["_modal_own"] = None  # the user's instance in this process
        state["_modal_entered"] = False
        state["_modal_lock"] = threading.RLock()
        state["_modal_bound"] = None  # (class id, id, when) of the function that serves it

    # -- at the server

    async def _modal_bind(self, client: Optional[Client] = None) -> tuple[RpcClient, str]:
        """The connection and the id of the function that serves these parameters; on the bridge's loop."""
        cls: Cls = self._modal_cls
        rpc, class_id = await cls._function._bind(client)
        state = self.__dict__
        bound = state["_modal_bound"]
        if bound is None or bound[0] != class_id or time.monotonic() - bound[2] > _BIND_AGAIN:
            function_id = await cls._bind_parameters(rpc, class_id, self)
            bound = state["_modal_bound"] = (class_id, function_id, time.monotonic())
        return rpc, bound[1]

    async def _modal_follow(self) -> bool:
        """The server does not know the function any more: find out what it is now. False when that cannot change."""
        state, function = self.__dict__, self._modal_cls._function
        bound = state["_modal_bound"]
        if bound is None or bound[2] == _FOR_EVER:
            return False
        if function._reference is not None:
            await function._look_up(function._reference, None)
        state["_modal_bound"] = None
        await self._modal_bind()
        return True

    @in_caller
    async def keep_warm(self, warm_pool_size: int) -> None:
        """Set how many containers are kept ready for this set of parameters.

        Args:
            warm_pool_size: from 0 to 10,000; at most the class's `concurrency_limit`.

        Raises:
            InvalidError: it is out of that range, or the app is not running.
        """
        await on_loop(self._modal_any_method()._keep_warm(check_pool_size(warm_pool_size)))

    def _modal_any_method(self) -> MethodFunction:
        return MethodFunction.of(self, "", False)

    def _modal_pack(self, spec: ClassSpec) -> bytes:
        """The parameters as they travel. One process pickles them and all others send the same bytes, since pickles of
        equal values may differ."""
        state = self.__dict__
        if state["_modal_packed"] is None:
            by_value = self._modal_cls._function._main_by_value
            state["_modal_packed"] = user_class.pack_parameters(
                self._modal_cls._function._tag, spec, self._modal_args, self._modal_kwargs, by_value
            )
        packed: bytes = state["_modal_packed"]
        return packed

    # -- in this process

    def _modal_local(self) -> Any:
        """The user's instance, made when it is first asked for."""
        state = self.__dict__
        with state["_modal_lock"]:
            if state["_modal_own"] is None:
                cls: Cls = self._modal_cls
                own = user_class.make_instance(cls._get_user_cls(), state["_modal_args"], state["_modal_kwargs"])
                _link(own, self)
                state["_modal_own"] = own
            return state["_modal_own"]

    def _modal_take_hooks(self) -> list[Callable[..., Any]]:
        """The enter hooks, to be run before the first local call; none after that."""
        state = self.__dict__
        with state["_modal_lock"]:
            if state["_modal_entered"]:
                return []
            own = self._modal_local()
            state["_modal_entered"] = True
            return [hook.__get__(own, type(own)) for hook in user_class.enter_hooks(type(own)).values()]

    @contextlib.contextmanager
    def _modal_entering(self) -> Iterator[None]:
        """While the hooks run: should one fail, they run again before the next call."""
        try:
            yield
        except BaseException:
            self.__dict__["_modal_entered"] = False
            raise

    def __getattr__(self, name: str) -> Any:
        cls: Cls = self._modal_cls
        if name.startswith("_modal_") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        if name.startswith("_") and cls._user_cls is None:  # what a debugger or a notebook looks for
            raise AttributeError(name)
        method = self._modal_method(name)
        if method is not None:
            return method
        if cls._user_cls is None:
            raise AttributeError(f"The class {cls._function._tag} has no method {name!r}.")
        return getattr(self._modal_local(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._modal_local(), name, value)

    def _modal_method(self, name: str) -> Optional[MethodFunction]:
        """The method of that name; None when there is none."""
        methods: dict[str, MethodFunction] = self.__dict__["_modal_methods"]
        if name not in methods:
            spec = self._modal_cls._spec
            if spec is None:  # not looked up yet: what it is will be known when it is called
                return MethodFunction.of(self, name, False)
            if name not in spec.methods:
                return None
            methods[name] = MethodFunction.of(self, name, spec.methods[name].is_generator)
        return methods[name]

    def __repr__(self) -> str:
        state = self.__dict__
        parts = [repr(one) for one in state["_modal_args"]]
        parts += [f"{name}={value!r}" for name, value in state["_modal_kwargs"].items()]
        return f"{self._modal_cls._function._tag}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        cls = self._modal_cls
        spec = cls._spec
        if spec is None:
            return Instance, (cls, self._modal_args, self._modal_kwargs)
        return _restored, (cls, self._modal_pack(spec), spec.has_constructor)


class MethodFunction(Function[Any, Any, Any]):
    """A method of an instance, as a function."""

    _instance: Instance
    _is_inside = False  #: reached through `self`: calling it runs it right here

    @classmethod
    def of(cls, instance: Instance, name: str, is_generator: bool) -> MethodFunction:
        """The method `name` of an instance."""
        function = instance._modal_cls._function
        tag = f"{function._tag}.{name}"
        method: MethodFunction = cls._new(f"Function {tag}")
        method._tag, method._method, method._instance = tag, name, instance
        method._is_generator, method._main_by_value = is_generator, function._main_by_value
        method._client = function._client
        return method

    async def _bind(self, client: Optional[Client] = None) -> tuple[RpcClient, str]:
        rpc, function_id = await self._instance._modal_bind(client)
        function = self._instance._modal_cls._function
        spec = function._cls_spec
        if spec is not None and self._method in spec.methods:  # else the server says what there is
            self._is_generator = spec.methods[self._method].is_generator
        self._object_id, self._web_url = function_id, function._web_url
        return rpc, function_id

    @property
    def _is_unknown(self) -> bool:
        return self._instance._modal_cls._spec is None

    async def _known(self, anew: bool = False) -> None:
        function = self._instance._modal_cls._function
        await function._known(anew)
        spec = function._cls_spec
        if spec is not None:
            self._instance._modal_pack(spec)  # in the caller, since it may run code of the user's
            if self._method in spec.methods:
                self._is_generator = spec.methods[self._method].is_generator

    async def _following(self, request: Callable[[bytes, str], Awaitable[T]], payload: bytes, parent: str) -> T:
        try:
            return await request(payload, parent)
        except NotFoundError:
            if not await self._instance._modal_follow():
                raise
            return await request(payload, parent)

    def get_raw_f(self) -> Callable[..., Any]:
        """The function in the user's class."""
        cls = self._instance._modal_cls._get_user_cls()
        raw: Callable[..., Any] = user_class.methods_of(cls)[self._method].raw_f
        return raw

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method in this process, on an instance made here. The enter hooks run before the first call."""
        from .._container.task import is_async

        own = self._instance._modal_local()
        method = self.get_raw_f().__get__(own, type(own))
        hooks = self._instance._modal_take_hooks()
        if is_async(method) and any(map(is_async, hooks)):
            run = _entered_values if self._is_generator else _entered
            return run(self._instance, hooks, method, args, kwargs)
        with self._instance._modal_entering():
            for hook in hooks:
                result = hook()
                if hasattr(type(result), "__await__"):
                    _run_to_end(result)
        return method(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Through `self`, inside of another method: run it right here. Elsewhere: raises InvalidError."""
        if not self._is_inside:
            return super().__call__(*args, **kwargs)
        own = self._instance._modal_local()
        return self.get_raw_f().__get__(own, type(own))(*args, **kwargs)

    def __get__(self, obj: Any, owner: Any = None) -> MethodFunction:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return MethodFunction.of, (self._instance, self._method, self._is_generator)


def _restored(cls: Cls, packed: bytes, has_constructor: bool) -> Instance:
    """Make an instance that was pickled."""
    args, kwargs = user_class.unpack_parameters(has_constructor, packed)
    return Instance(cls, args, kwargs, packed)


def method_of(own: Any, name: str) -> Optional[MethodFunction]:
    """The method `name` of a user's instance that an `Instance` made; None for another one."""
    instance: Optional[Instance] = getattr(own, "__dict__", {}).get(LINK)
    method = instance._modal_method(name) if instance is not None else None
    if method is None or instance is None:
        return None
    inside = MethodFunction.of(instance, name, method._is_generator)
    inside._is_inside = True
    return inside


def adopt(own: Any, cls: type, tag: str, args: tuple[Any, ...], kwargs: dict[str, Any], packed: bytes) -> None:
    """In a container: let the user's instance that it runs find the function that the container serves."""
    from .cls import Cls

    instance = Instance(Cls._of_container(cls, tag), args, kwargs, packed)
    state = instance.__dict__
    state["_modal_own"], state["_modal_entered"] = own, True
    context = container_context()
    if context is not None:
        class_id = context.objects.get(tag, context.function_id)
        state["_modal_bound"] = (class_id, context.function_id, _FOR_EVER)
    _link(own, instance)


def _link(own: Any, instance: Instance) -> None:
    state = getattr(own, "__dict__", None)
    if state is not None:  # else its class has slots, and its methods are plain ones
        state[LINK] = instance


async def _enter(instance: Instance, hooks: list[Callable[..., Any]]) -> None:
    with instance._modal_entering():
        for hook in hooks:
            result = hook()
            if hasattr(type(result), "__await__"):
                await result


async def _entered(instance: Instance, hooks: Any, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    await _enter(instance, hooks)
    return await method(*args, **kwargs)


async def _entered_values(instance: Instance, hooks: Any, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    await _enter(instance, hooks)
    async for value in method(*args, **kwargs):
        yield value


def _run_to_end(coroutine: Coroutine[Any, Any, T]) -> None:
    """Run an async hook before a method that is not; in a thread of its own when this one has a running loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    raised: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
