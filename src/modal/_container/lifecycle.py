"""The life of a class in a container: one instance, its hooks, and its methods as what inputs run.

Enter hooks run in the main thread before the container is ready, exit hooks there after its last input. Async hooks run
on one event loop, which is also that of async methods.
"""

from __future__ import annotations

from . import streams
from .machine import Input
from .task import Task
from .user_code import LoadError, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable
    from typing import Any, Callable, Optional


class Lifecycle:
    """The user's class `cls`, called `name`, as `spec` (a `ClassSpec` as JSON) describes it."""

    def __init__(self, cls: type, name: str, spec: dict[str, Any]):
        self._cls = cls
        self._name = name
        self._spec = spec
        self._instance: Any = None
        self._loop: Optional[AbstractEventLoop] = None
        self.current = ""  #: the hook that runs now

    @property
    def loop(self) -> AbstractEventLoop:
        """The event loop of async hooks and methods."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def construct(self, parameters: memoryview) -> None:
        """Make the instance.

        Raises:
            LoadError: the parameters cannot be unpickled, or the constructor raised.
        """
        from modal._objects import user_class
        from modal._objects.cls_instance import adopt

        self.current = f"the constructor of {self._name}"
        try:
            args, kwargs = user_class.unpack_parameters(bool(self._spec.get("has_constructor")), parameters)
            self._instance = user_class.make_instance(self._cls, args, kwargs)
            adopt(self._instance, self._cls, self._name, args, kwargs, bytes(parameters))
        except BaseException as exc:
            self._explain(exc)
        self.current = ""

    def enter(self) -> None:
        """Run the enter hooks.

        Raises:
            LoadError: one raised.
        """
        from modal._objects import user_class

        for name, hook in user_class.enter_hooks(self._cls).items():
            self.current = f"the enter hook {self._name}.{name}"
            try:
                self._run(hook)
            except BaseException as exc:
                self._explain(exc)
        self.current = ""

    def leave(self) -> None:
        """Run the exit hooks, each one whatever the others do. What they raise is printed."""
        from modal._objects import user_class

        for name, hook in user_class.exit_hooks(self._cls).items():
            self.current = f"the exit hook {self._name}.{name}"
            try:
                self._run(hook, user_class.exit_arguments(hook))
            except BaseException as exc:
                _complain(self.current, exc)
        self.current = ""

    def methods(self) -> dict[str, Callable[..., Any]]:
        """The methods of the instance by name."""
        from modal._objects import user_class

        methods = user_class.methods_of(self._cls)
        return {name: one.raw_f.__get__(self._instance, self._cls) for name, one in methods.items()}

    def _run(self, hook: Callable[..., Any], arguments: tuple[Any, ...] = ()) -> None:
        result = hook.__get__(self._instance, self._cls)(*arguments)
        if hasattr(type(result), "__await__"):
            self.loop.run_until_complete(_awaited(result))

    def _explain(self, exc: BaseException) -> None:
        """Turn what user code raised while the container starts into what its callers see."""
        if isinstance(exc, KeyboardInterrupt):
            raise exc
        if isinstance(exc, SystemExit):
            message = f"{_capital(self.current)} called sys.exit({'' if exc.code is None else repr(exc.code)})."
            raise LoadError("ExecutionError", message) from None
        note = f"This was raised by {self.current} while a container started."
        exc.__dict__.setdefault("__notes__", []).append(note)  # add_note of Python 3.11
        raise LoadError("ExecutionError", f"{_capital(self.current)} raised {summary(exc)}.", exc) from None


class MethodTask(Task):
    """The methods of a class: an input names the one to run."""

    def __init__(self, lifecycle: Lifecycle, name: str, spec: dict[str, Any], timeout: float):
        super().__init__(_no_function, name, False, timeout)
        self.lifecycle = lifecycle
        self.methods = lifecycle.methods()
        self._spec = spec.get("methods", {})

    def function_of(self, item: Input) -> Callable[..., Any]:
        try:
            return self.methods[item.method]
        except KeyError:
            from modal.exception import NotFoundError

            known = ", ".join(self.methods) or "none"
            message = f"The class {self.name} in the container has no method {item.method!r}; its methods are: {known}."
            raise NotFoundError(message) from None

    def functions(self) -> Iterable[Callable[..., Any]]:
        return self.methods.values()

    def yields(self, item: Input) -> bool:
        return bool(self._spec.get(item.method, {}).get("is_generator"))

    def name_of(self, item: Input) -> str:
        return f"{self.name}.{item.method}"


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _complain(what: str, exc: BaseException) -> None:
    from traceback import format_exception

    from modal._tracebacks import without_sdk_frames

    if isinstance(exc, SystemExit):
        streams.complain(f"{_capital(what)} called sys.exit; the container ends as it would have.")
        return
    text = "".join(format_exception(type(exc), exc, without_sdk_frames(exc.__traceback__)))
    streams.complain(f"{_capital(what)} raised an exception:\n{text}".rstrip())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _no_function(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("a class has no function")
