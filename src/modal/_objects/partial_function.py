"""Decorators that mark a function or a method before `@app.function()` or `@app.cls()` takes it."""

from __future__ import annotations

import enum
import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Protocol, TypeVar, Union, overload

from .._runtime_context import container_context, is_local
from .._type_vars import Concatenate, OriginalReturnType, P, ReturnType
from ..exception import DeprecationError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .function import Function

Result = TypeVar("Result")
Original = TypeVar("Original")


class Mark(enum.Enum):
    """What a decorator says of a function."""

    METHOD = "method"
    ENTER = "enter"
    ENTER_BEFORE_SNAPSHOT = "enter_before_snapshot"
    EXIT = "exit"
    BUILD = "build"
    BATCHED = "batched"
    WEB_ENDPOINT = "web_endpoint"
    ASGI_APP = "asgi_app"
    WSGI_APP = "wsgi_app"
    WEB_SERVER = "web_server"


WEB_MARKS = frozenset({Mark.WEB_ENDPOINT, Mark.ASGI_APP, Mark.WSGI_APP, Mark.WEB_SERVER})
#: What makes a method callable from outside.
METHOD_MARKS = frozenset({Mark.METHOD, Mark.BATCHED}) | WEB_MARKS
#: What only methods can be, and the decorator that says so.
_CLASS_MARKS = {
    Mark.METHOD: "method",
    Mark.ENTER: "enter",
    Mark.ENTER_BEFORE_SNAPSHOT: "enter",
    Mark.EXIT: "exit",
    Mark.BUILD: "build",
}
#: The attribute by which a user's instance knows the `Instance` that made it.
LINK = "_modal_instance"


@dataclass(frozen=True)
class PartialFunction(Generic[P, ReturnType, OriginalReturnType]):
    """A marked function. `marks` maps each mark to the options of its decorator."""

    raw_f: Callable[..., Any]
    marks: dict[Mark, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_web(self) -> bool:
        """Whether it is to be served over HTTP."""
        return not WEB_MARKS.isdisjoint(self.marks)

    @overload
    def __get__(
        self, instance: None, owner: Optional[type] = None
    ) -> PartialFunction[P, ReturnType, OriginalReturnType]: ...

    @overload
    def __get__(self, instance: Any, owner: Optional[type] = None) -> Function[P, ReturnType, OriginalReturnType]: ...

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        """On an instance that an app's class made, a method that can be called remotely too; on another, the plain
        method; on the class, the mark."""
        if instance is None:
            return self
        method = self._remote_method(instance)
        return self.raw_f.__get__(instance, owner) if method is None else method

    def _remote_method(self, instance: Any) -> Any:
        state = getattr(instance, "__dict__", {})
        if LINK not in state or METHOD_MARKS.isdisjoint(self.marks):
            return None
        from .cls_instance import method_of

        return method_of(instance, self._name_in(type(instance)))  # none when it is reached with super()

    def _name_in(self, cls: type) -> str:
        """The name by which instances of a class reach this; "" when they do not."""
        likely = getattr(self.raw_f, "__name__", "")
        owner: Mapping[str, Any] = next((vars(base) for base in cls.__mro__ if likely in vars(base)), {})
        if owner.get(likely) is self:
            return str(likely)
        return next((name for name, one in vars_of(cls).items() if one is self), "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self.raw_f, "__name__", "the function")
        raise InvalidError(f"{name} is only marked; put @app.function() or @app.cls() around it and call its .local().")


def refuse_class_marks(function: PartialFunction[Any, Any, Any]) -> None:
    """Raises InvalidError when a function that is no method has a mark of methods."""
    for mark, name in _CLASS_MARKS.items():
        if mark in function.marks:
            what = getattr(function.raw_f, "__name__", "this")
            raise InvalidError(
                f"@modal.{name}() marks a method of a class that is decorated with @app.cls(), but {what} is decorated "
                "with @app.function(): remove one of the two."
            )


def vars_of(cls: type) -> dict[str, Any]:
    """The attributes of a class and its bases, as an instance sees them."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    return found


#: What the marking decorators take.
Markable = Union[Callable[..., Any], "PartialFunction[Any, Any, Any]"]
Marked = Callable[[Markable], "PartialFunction[Any, Any, Any]"]


class MethodDecorator(Protocol):
    """What `@modal.method()` gives. An `async def` method keeps its coroutine for `.local`, not for `.remote`."""

    @overload
    def __call__(self, func: PartialFunction[P, Result, Original]) -> PartialFunction[P, Result, Original]: ...

    @overload
    def __call__(
        self, func: Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]]
    ) -> PartialFunction[P, Result, Coroutine[Any, Any, Result]]: ...

    @overload
    def __call__(self, func: Callable[Concatenate[Any, P], Result]) -> PartialFunction[P, Result, Result]: ...


@dataclass(frozen=True)
class Parameter:
    """A field of a class that callers set. See `parameter`."""

    default: Any
    init: bool

    @property
    def has_default(self) -> bool:
        return self.default is not _no_default

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        """Reached on an instance only while that has no value of its own."""
        if instance is None:
            return self
        name = getattr(self, "_name", "?")
        raise AttributeError(f"The attribute {name!r} of {type(instance).__name__} has no value yet.")


class _NoDefault:
    def __repr__(self) -> str:
        return "..."

    def __reduce__(self) -> str:
        return "_no_default"  # there is one, in every process


_no_default = _NoDefault()


def parameter(*, default: Any = _no_default, init: bool = True) -> Any:
    """Declare a parameter of a class decorated with `@app.cls()`, as `name: str = modal.parameter()`.

    Args:
        default: value when the caller gives none; without it the parameter is required.
        init: False declares the type of an attribute that is no parameter.
    """
    return Parameter(default, bool(init))


def method(
    _warn_parentheses_missing: Any = None, *, is_generator: Optional[bool] = None, keep_warm: Optional[int] = None
) -> MethodDecorator:
    """Make a method callable remotely.

    Args:
        is_generator: True for a function that returns a generator without being one; found out by default.
        keep_warm: deprecated: give it to `@app.cls()`.
    """
    _check_parentheses(_warn_parentheses_missing, "method")
    if keep_warm is not None:
        _warn_deprecated("keep_warm of @modal.method() is deprecated; give it to @app.cls().")
    decorator: Any = _marker(Mark.METHOD, {"is_generator": is_generator, "keep_warm": keep_warm}, "method")
    typed: MethodDecorator = decorator
    return typed


def enter(_warn_parentheses_missing: Any = None, *, snap: bool = False) -> Marked:
    """Run a method when a container starts; with `snap=True` before its memory snapshot is taken."""
    _check_parentheses(_warn_parentheses_missing, "enter")
    return _marker(Mark.ENTER_BEFORE_SNAPSHOT if snap else Mark.ENTER, {}, "enter")


def exit(_warn_parentheses_missing: Any = None) -> Marked:
    """Run a method when a container is about to exit."""
    _check_parentheses(_warn_parentheses_missing, "exit")
    return _marker(Mark.EXIT, {}, "exit")


def build(_warn_parentheses_missing: Any = None, *, force: bool = False, timeout: int = 86400) -> Marked:
    """Deprecated: use `modal.Volume` or `Image.run_function`. Run a method when the image is built."""
    _check_parentheses(_warn_parentheses_missing, "build")
    _warn_deprecated("@modal.build() is deprecated; use a modal.Volume or Image.run_function.")
    return _marker(Mark.BUILD, {"force": force, "timeout": timeout}, "build")


def batched(_warn_parentheses_missing: Any = None, *, max_batch_size: int, wait_ms: int) -> Marked:
    """Gather single inputs into lists of up to `max_batch_size`, waiting at most `wait_ms` milliseconds for more.

    Raises:
        InvalidError: unless `max_batch_size` is 1 to 1000 and `wait_ms` 0 to 600,000.
    """
    _check_parentheses(_warn_parentheses_missing, "batched", "max_batch_size=..., wait_ms=...")
    for name, value, low, high in (("max_batch_size", max_batch_size, 1, 1000), ("wait_ms", wait_ms, 0, 600_000)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidError(f"@modal.batched: {name} must be a whole number from {low} to {high}, not {value!r}.")
    return _marker(Mark.BATCHED, {"max_batch_size": max_batch_size, "wait_ms": wait_ms}, "batched")


def web_endpoint(
    _warn_parentheses_missing: Any = None,
    *,
    method: str = "GET",
    label: Optional[str] = None,
    docs: bool = False,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
    wait_for_response: bool = True,
) -> Marked:
    """Serve a function over HTTP as a FastAPI handler.

    Args:
        method: HTTP method.
        label: name in the URL, instead of one made of the app's and the function's.
        docs: serve interactive documentation at `/docs`.
        custom_domains: domains to serve at.
        requires_proxy_auth: ask for a token in the request's headers.
        wait_for_response: deprecated: always True.
    """
    _check_parentheses(_warn_parentheses_missing, "web_endpoint")
    options = _web_options(label, custom_domains, requires_proxy_auth, wait_for_response)
    return _marker(Mark.WEB_ENDPOINT, {**options, "method": method, "docs": docs}, "web_endpoint")


def asgi_app(
    _warn_parentheses_missing: Any = None,
    *,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
    wait_for_response: bool = True,
) -> Marked:
    """Serve the ASGI app that a function returns. Parameters as in `web_endpoint`."""
    _check_parentheses(_warn_parentheses_missing, "asgi_app")
    options = _web_options(label, custom_domains, requires_proxy_auth, wait_for_response)
    return _marker(Mark.ASGI_APP, options, "asgi_app")


def wsgi_app(
    _warn_parentheses_missing: Any = None,
    *,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
    wait_for_response: bool = True,
) -> Marked:
    """Serve the WSGI app that a function returns. Parameters as in `web_endpoint`."""
    _check_parentheses(_warn_parentheses_missing, "wsgi_app")
    options = _web_options(label, custom_domains, requires_proxy_auth, wait_for_response)
    return _marker(Mark.WSGI_APP, options, "wsgi_app")


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
) -> Marked:
    """Serve what a function starts to listen with on `port`, within `startup_timeout` seconds.

    Raises:
        InvalidError: for a port that is none, or a timeout that is not positive.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidError(f"@modal.web_server: the port must be a whole number from 1 to 65535, not {port!r}.")
    if startup_timeout <= 0:
        raise InvalidError("@modal.web_server: startup_timeout must be above 0 seconds.")
    options = _web_options(label, custom_domains, requires_proxy_auth, True)
    return _marker(Mark.WEB_SERVER, {**options, "port": port, "startup_timeout": startup_timeout}, "web_server")


def interact() -> None:
    """Connect this container to the terminal of whoever runs the app, until the current input has ended.

    Then `input()`, `breakpoint()`, `IPython.embed()` and the like work as in a local program. The app must be run with
    `modal run --interactive`, or with `app.run(interactive=True)` inside `with modal.enable_output():`. Time spent with
    the terminal does not count against the function's timeout. A second call does nothing while the first one's
    connection lasts.

    Raises:
        InvalidError: this is no container, or its app is not run interactively.
        InteractiveTimeoutError: no terminal was connected within a minute.
    """
    if container_context() is None:
        raise InvalidError(
            "modal.interact() connects a container to your terminal; this code runs in your own process, which has it."
        )
    from .._container.interaction import begin

    begin()


def _web_options(
    label: Optional[str], custom_domains: Optional[Iterable[str]], requires_proxy_auth: bool, wait_for_response: bool
) -> dict[str, Any]:
    if isinstance(custom_domains, str):
        raise InvalidError("custom_domains takes a list of domains, not one string.")
    if not wait_for_response:
        warnings.warn("wait_for_response=False has no effect any more.", DeprecationError, stacklevel=3)
    domains = list(custom_domains or ())
    return {"label": label, "custom_domains": domains, "requires_proxy_auth": requires_proxy_auth}


def _marker(mark: Mark, options: dict[str, Any], name: str) -> Marked:
    def decorate(f: Any) -> PartialFunction[Any, Any, Any]:
        if hasattr(f, "get_raw_f"):
            raise InvalidError(f"@modal.{name}() goes below @app.function(), next to the function: swap the two lines.")
        partial: PartialFunction[Any, Any, Any] = f if isinstance(f, PartialFunction) else PartialFunction(f)
        if not callable(partial.raw_f) or inspect.isclass(partial.raw_f):
            raise InvalidError(f"@modal.{name}() decorates a function or a method, not {f!r}.")
        return replace(partial, marks={**partial.marks, mark: options})

    return decorate


def _warn_deprecated(message: str) -> None:
    """Warn where the user reads it; their containers import the same code."""
    if is_local():
        warnings.warn(message, DeprecationError, stacklevel=3)


def _check_parentheses(first: Any, name: str, arguments: str = "") -> None:
    if first is not None:
        raise InvalidError(f"@modal.{name} takes no positional argument: write `@modal.{name}({arguments})`.")
