"""`modal.App`: functions that are deployed together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, TypeVar, Union, overload

from .._renamed import renamed_parameter
from .._runtime_context import container_context
from .._sync import blocking, blocking_context
from .._type_vars import OriginalReturnType, P
from ..exception import InvalidError, NotFoundError
from .cls import Cls
from .function import Function
from .function_options import NOTHING, FunctionOptions, check_options, with_batches
from .local_entrypoint import LocalEntrypoint
from .partial_function import Mark, PartialFunction, parameter, refuse_class_marks
from .user_class import class_options, forget_decorated_bases, spec_of
from .user_function import check_class_place, check_function, check_scheduled_function, is_generator_function

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import dataclass_transform

    from ..gpu import GPU_T
    from ..retries import Retries
    from ..schedule import Schedule
    from .client import Client
    from .cloud_bucket_mount import CloudBucketMount
    from .image import Image
    from .mount import Mount
    from .network_file_system import NetworkFileSystem
    from .object import Object
    from .proxy import Proxy
    from .secret import Secret
    from .volume import Volume
else:  # containers have no typing_extensions

    def dataclass_transform(**options: Any) -> Any:
        return lambda function: function


CLS = TypeVar("CLS", bound=type)
Result = TypeVar("Result")


class FunctionDecorator(Protocol):
    """What `@app.function(...)` gives. An `async def` function keeps its coroutine for `.local`, not for `.remote`."""

    @overload
    def __call__(
        self, func: Callable[P, Coroutine[Any, Any, Result]]
    ) -> Function[P, Result, Coroutine[Any, Any, Result]]: ...

    @overload
    def __call__(self, func: Callable[P, Result]) -> Function[P, Result, Result]: ...

    @overload
    def __call__(self, func: PartialFunction[Any, Any, Any]) -> Function[Any, Any, Any]: ...


@renamed_parameter("label", "name")
async def _lookup(
    name: str,
    client: Optional[Client] = None,
    environment_name: Optional[str] = None,
    create_if_missing: bool = False,
) -> App:
    """Find a deployed app by its name.

    Args:
        name: the name that it is deployed as.
        client: the connection to use; default: that of the configuration.
        environment_name: its environment; default: that of the configuration, or in a container that of its app.
        create_if_missing: make an app of that name when there is none: deployed, and without functions.

    Raises:
        NotFoundError: there is none of that name.
        InvalidError: the name is none for an app.
        AuthError: code in a container asks for an app that does not exist to be made.
    """
    from .._wire.messages.app import APP_ENSURE, APP_LOOKUP, AppName
    from .client import current_environment, default_client

    app = App(name)
    rpc = await (client or default_client())._rpc()
    wanted = AppName(name, current_environment(environment_name))
    try:
        found, _ = await rpc.unary(APP_LOOKUP, wanted)
    except NotFoundError:
        if not create_if_missing:
            raise
        found, _ = await rpc.unary(APP_ENSURE, wanted)
    app._app_id = found.app_id
    app._is_looked_up = True
    return app


class App:
    """A group of functions that run and are deployed together.

    app = modal.App()

    @app.function()
    def square(x):
        return x * x

    @app.local_entrypoint()
    def main():
        print(square.remote(7))
    """

    def __init__(
        self,
        name: Optional[str] = None,
        *,
        image: Optional[Image] = None,
        mounts: Sequence[Mount] = [],
        secrets: Sequence[Secret] = [],
        volumes: dict[Union[str, PurePosixPath], Volume] = {},  # noqa: B006
    ) -> None:
        """Make an app. Nothing happens at the server before it runs.

        Args:
            name: its name; letters, digits, dashes, dots and underscores.
            image: default image of the functions; else `modal.Image.debian_slim()`.
            mounts: mounts of all functions.
            secrets: secrets of all functions.
            volumes: volumes of all functions.

        Raises:
            InvalidError: a value is of the wrong kind.
        """
        self._name = check_name(name)
        self._description: Optional[str] = None
        # Checked as those of a function are, by the same code.
        defaults = check_options({**NOTHING, "image": image, "mounts": mounts, "secrets": secrets, "volumes": volumes})
        self._image, self._mounts, self._secrets = defaults.image, defaults.mounts, defaults.secrets
        self._mounted = defaults.mounted
        self._not_yet = defaults.not_yet
        self._functions: dict[str, Function[Any, Any, Any]] = {}
        self._classes: dict[str, Cls] = {}
        self._entrypoints: dict[str, LocalEntrypoint[Any, Any]] = {}
        self._app_id: Optional[str] = None
        self._running = False
        self._is_interactive = False
        self._is_looked_up = False

    # -- what it is

    @property
    def name(self) -> Optional[str]:
        """The name given to the app."""
        return self._name

    @property
    def is_interactive(self) -> bool:
        """Whether the app runs in interactive mode: `modal.interact()` works in its containers."""
        context = container_context()
        return context.is_interactive if context is not None else self._is_interactive

    @property
    def app_id(self) -> Optional[str]:
        """The id of the running app, or of the one that ran last."""
        context = container_context()
        return self._app_id if context is None or self._is_looked_up else context.app_id

    @property
    def description(self) -> Optional[str]:
        """The app's name, or else the description that was set."""
        return self._name or self._description

    def set_description(self, description: str) -> None:
        """Describe an app that has no name."""
        self._description = description

    @property
    def image(self) -> Image:
        """The default image of the functions."""
        if self._image is None:
            from .image import Image

            self._image = Image.debian_slim()
        return self._image

    @property
    def registered_functions(self) -> dict[str, Function[Any, Any, Any]]:
        """The functions by name."""
        return dict(self._functions)

    @property
    def registered_classes(self) -> dict[str, Cls]:
        """The classes by name."""
        return dict(self._classes)

    @property
    def registered_entrypoints(self) -> dict[str, LocalEntrypoint[Any, Any]]:
        """The local entrypoints by name."""
        return dict(self._entrypoints)

    @property
    def indexed_objects(self) -> dict[str, Object]:
        """The functions and classes by name."""
        return {**self._functions, **self._classes}

    def _loadable(self) -> dict[str, Function[Any, Any, Any]]:
        """What the server knows: the functions, and the classes as functions, by name."""
        return {**self._functions, **{tag: cls._function for tag, cls in self._classes.items()}}

    @property
    def registered_web_endpoints(self) -> list[str]:
        """The names of functions that are web endpoints: none, until those are available."""
        return []

    lookup = blocking(_lookup)

    # -- running

    @blocking_context
    @asynccontextmanager
    async def run(
        self,
        client: Optional[Client] = None,
        show_progress: Optional[bool] = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: Optional[str] = None,
    ) -> AsyncIterator[App]:
        """Run the app while the `with` (or `async with`) block runs; functions can be called in it.

        Args:
            client: the connection to use; default: that of the configuration, or else the local server, which is
                started when it does not run.
            show_progress: deprecated: use `modal.enable_output()`.
            detach: the app goes on after the block until its calls are done.
            interactive: containers may use this process's terminal, with `modal.interact()` or `breakpoint()`; output
                must be enabled.
            environment_name: the environment; default: that of the configuration.

        Raises:
            InvalidError: the app runs already, this is a container, `interactive` lacks enabled output, or a
                function has something this version cannot do.
            ConnectionError: no server can be reached or started.
            RemoteError: an image cannot be built.
        """
        from .._running import RunOptions, running

        if show_progress is not None:
            _warn_show_progress()
        async with running(self, client, RunOptions(bool(detach), bool(interactive), environment_name)):
            yield self

    # -- registering

    def function(
        self,
        _warn_parentheses_missing: Any = None,
        *,
        image: Optional[Image] = None,
        schedule: Optional[Schedule] = None,
        secrets: Sequence[Secret] = (),
        gpu: Union[GPU_T, list[GPU_T]] = None,
        serialized: bool = False,
        mounts: Sequence[Mount] = (),
        network_file_systems: dict[Union[str, PurePosixPath], NetworkFileSystem] = {},  # noqa: B006
        volumes: dict[Union[str, PurePosixPath], Union[Volume, CloudBucketMount]] = {},  # noqa: B006
        allow_cross_region_volumes: bool = False,
        cpu: Optional[Union[float, tuple[float, float]]] = None,
        memory: Optional[Union[int, tuple[int, int]]] = None,
        ephemeral_disk: Optional[int] = None,
        proxy: Optional[Proxy] = None,
        retries: Optional[Union[int, Retries]] = None,
        concurrency_limit: Optional[int] = None,
        allow_concurrent_inputs: Optional[int] = None,
        container_idle_timeout: Optional[int] = None,
        timeout: Optional[int] = None,
        keep_warm: Optional[int] = None,
        name: Optional[str] = None,
        is_generator: Optional[bool] = None,
        cloud: Optional[str] = None,
        region: Optional[Union[str, Sequence[str]]] = None,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        max_inputs: Optional[int] = None,
        i6pn: Optional[bool] = None,
        _experimental_scheduler_placement: Optional[Any] = None,
        _experimental_buffer_containers: Optional[int] = None,
        _experimental_proxy_ip: Optional[str] = None,
        _experimental_custom_scaling_factor: Optional[float] = None,
    ) -> FunctionDecorator:
        """Register a function with the app, as `@app.function()`.

        Args:
            image: what the containers run in; default: the app's.
            schedule: when it runs by itself once deployed, a `modal.Cron` or `modal.Period`; the function must be
                callable without arguments. `modal run` takes no notice of it.
            secrets: environment variables of the containers.
            gpu: "any", "T4", "A100:2", an object of `modal.gpu`, or a list of alternatives.
            serialized: send the function pickled, instead of importing its module in the container; the Python versions
                must be the same.
            mounts: deprecated: local files for the containers; use `Image.add_local_*`.
            network_file_systems: network file systems by path.
            volumes: volumes by path.
            allow_cross_region_volumes: no effect: there are no regions.
            cpu: cores to ask for, above 0 to 1024, or (request, limit); default 0.125.
            memory: MiB to ask for, from 1 to 16,777,216, or (request, limit); default 128.
            ephemeral_disk: MiB that a container may write, from 1 to 16,777,216.
            proxy: outbound address (not available yet).
            retries: how often a failed input is tried again, 0 to 10, or a `modal.Retries`.
            concurrency_limit: containers at most, from 1 to 100,000, and not below `keep_warm`.
            allow_concurrent_inputs: inputs that one container runs at a time, 1 to 1000.
            container_idle_timeout: seconds until an idle container ends, from 1 to 86,400; default 60.
            timeout: seconds an input may run, 1 second to 7 days; default 300.
            keep_warm: containers at least, from 0 to 10,000.
            name: its name in the app; default: that of the Python function.
            is_generator: True for a function that returns a generator without being one.
            cloud: "aws", "gcp", "oci" or "auto".
            region: region or regions to run in.
            enable_memory_snapshot: start from a snapshot where possible.
            block_network: no network in the containers.
            max_inputs: inputs after which a container is replaced, from 1 to 1,000,000,000.
            i6pn: IPv6 between containers (not available yet).
            _experimental_buffer_containers: idle containers beyond those that are needed, from 0 to 10,000.
            _experimental_custom_scaling_factor: the part of the containers that the load asks for, from 0 (as if not
                given) to 1.

        Raises:
            InvalidError: a value is out of range or of the wrong kind, or the function cannot be found by containers.
        """
        options = check_options({**NOTHING, **{k: v for k, v in locals().items() if k in NOTHING}})
        if _warn_parentheses_missing is not None:
            raise InvalidError("@app.function takes no positional argument: write `@app.function()`, with parentheses.")

        def decorate(func: Any) -> Any:
            return self._add_function(func, options, name, is_generator)

        return decorate

    def _add_function(
        self, func: Any, options: FunctionOptions, name: Optional[str], is_generator: Optional[bool]
    ) -> Function[Any, Any, Any]:
        not_yet = options.not_yet + self._not_yet
        batched = None
        if isinstance(func, PartialFunction):
            batched = func.marks.get(Mark.BATCHED)
            refuse_class_marks(func)
            not_yet += tuple(f"@modal.{mark.value}" for mark in func.marks if mark is not Mark.BATCHED)
            func = func.raw_f
        if isinstance(func, Function):
            raise InvalidError(f"The function {func._tag!r} is registered with an app already.")
        check_function(func, options.serialized)
        tag = func.__name__ if name is None else name
        if not isinstance(tag, str) or not 0 < len(tag) <= 256:
            raise InvalidError(f"A function's name must be a string of 1 to 256 characters, not {tag!r}.")
        from dataclasses import replace

        options = replace(options, not_yet=not_yet)
        generator = is_generator_function(func) if is_generator is None else bool(is_generator)
        if batched is not None:
            options = with_batches(options, tag, generator, batched)
        if options.schedule is not None:
            check_scheduled_function(func, tag, generator)
        function = Function._of(func, tag, options, generator)
        self._register(function)
        self._enter_container(function)
        return function

    def _enter_container(self, function: Function[Any, Any, Any]) -> None:
        """In a container of `function`, raise what its image's `imports` held back."""
        container = container_context()
        image = function._options.image or self._image
        if image is not None and container is not None and container.function_name == function._tag:
            image._enter_container()

    def _register(self, function: Function[Any, Any, Any], cls: Optional[Cls] = None) -> None:
        if self._running:
            raise InvalidError(f"The app is running: {function._tag!r} must be registered before that.")
        before = self._loadable().get(function._tag)
        if before is not None and not _same_place(before, function):
            import warnings

            what = "function" if function._tag in self._functions else "class"
            warnings.warn(
                f"The app has a {what} {function._tag!r} already, which this one replaces; give one of them another "
                "name, for example with @app.function(name=...).",
                UserWarning,
                stacklevel=4,
            )
        function._app = self  # whose defaults it keeps when another app includes it
        self._functions.pop(function._tag, None)
        self._classes.pop(function._tag, None)
        if cls is not None:
            self._classes[function._tag] = cls
        else:
            self._functions[function._tag] = function

    @dataclass_transform(field_specifiers=(parameter,), kw_only_default=True)
    def cls(
        self,
        _warn_parentheses_missing: Optional[bool] = None,
        *,
        image: Optional[Image] = None,
        secrets: Sequence[Secret] = (),
        gpu: Union[GPU_T, list[GPU_T]] = None,
        serialized: bool = False,
        mounts: Sequence[Mount] = (),
        network_file_systems: dict[Union[str, PurePosixPath], NetworkFileSystem] = {},  # noqa: B006
        volumes: dict[Union[str, PurePosixPath], Union[Volume, CloudBucketMount]] = {},  # noqa: B006
        allow_cross_region_volumes: bool = False,
        cpu: Optional[Union[float, tuple[float, float]]] = None,
        memory: Optional[Union[int, tuple[int, int]]] = None,
        ephemeral_disk: Optional[int] = None,
        proxy: Optional[Proxy] = None,
        retries: Optional[Union[int, Retries]] = None,
        concurrency_limit: Optional[int] = None,
        allow_concurrent_inputs: Optional[int] = None,
        container_idle_timeout: Optional[int] = None,
        timeout: Optional[int] = None,
        keep_warm: Optional[int] = None,
        cloud: Optional[str] = None,
        region: Optional[Union[str, Sequence[str]]] = None,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        max_inputs: Optional[int] = None,
        _experimental_scheduler_placement: Optional[Any] = None,
        _experimental_buffer_containers: Optional[int] = None,
        _experimental_proxy_ip: Optional[str] = None,
        _experimental_custom_scaling_factor: Optional[float] = None,
    ) -> Callable[[CLS], CLS]:
        """Register a class with the app, as `@app.cls()`.

        What is marked with `@modal.method()` runs in containers. Each container makes one instance and keeps it for all
        of its inputs; `@modal.enter()` and `@modal.exit()` mark what it runs before and after them. Fields declared
        with `modal.parameter()` are parameters of the class; each set of values has containers of its own.

        Args: as of `function`.

        Raises:
            InvalidError: a value is out of range or of the wrong kind, or the class cannot be found by containers.
        """
        options = check_options({**NOTHING, **{k: v for k, v in locals().items() if k in NOTHING}})
        if _warn_parentheses_missing is not None:
            raise InvalidError("@app.cls takes no positional argument: write `@app.cls()`, with parentheses.")

        def decorate(user_cls: CLS) -> CLS:
            made: Any = self._add_class(user_cls, options)
            return made  # type: ignore[no-any-return]  # to a type checker it stays the user's class

        return decorate

    def _add_class(self, user_cls: Any, options: FunctionOptions) -> Cls:
        if isinstance(user_cls, Cls):
            raise InvalidError(f"The class {user_cls._function._tag!r} is registered with an app already.")
        check_class_place(user_cls, options.serialized)
        forget_decorated_bases(user_cls)
        spec = spec_of(user_cls)
        tag = user_cls.__name__
        cls = Cls._of(user_cls, tag, class_options(user_cls, spec, options, self._not_yet), spec)
        self._register(cls._function, cls)
        self._enter_container(cls._function)
        return cls

    @overload
    def local_entrypoint(
        self, _warn_parentheses_missing: None = None, *, name: Optional[str] = None
    ) -> Callable[[Callable[P, OriginalReturnType]], LocalEntrypoint[P, OriginalReturnType]]: ...

    @overload
    def local_entrypoint(self, _warn_parentheses_missing: Callable[..., Any], *, name: Optional[str] = None) -> Any: ...

    def local_entrypoint(self, _warn_parentheses_missing: Any = None, *, name: Optional[str] = None) -> Any:
        """Register where `modal run` begins, as `@app.local_entrypoint()`. The function runs in the user's process.

        Args:
            name: its name; default: that of the Python function.

        Raises:
            InvalidError: written without parentheses, on something that is no function, or the name is taken.
        """
        if _warn_parentheses_missing is not None:
            raise InvalidError("Write `@app.local_entrypoint()`, with parentheses.")
        if name is not None and not isinstance(name, str):
            raise InvalidError(f"The name of a local entrypoint must be a string, not {name!r}.")

        def decorate(raw_f: Callable[..., Any]) -> LocalEntrypoint[Any, Any]:
            if not callable(raw_f) or isinstance(raw_f, (type, Function)):
                raise InvalidError(f"@app.local_entrypoint() decorates plain functions, not {raw_f!r}.")
            tag = raw_f.__qualname__ if name is None else name
            if tag in self._entrypoints:
                raise InvalidError(f"The app has a local entrypoint {tag!r} already; give this one another name.")
            entrypoint: LocalEntrypoint[Any, Any] = LocalEntrypoint(raw_f, tag)
            self._entrypoints[tag] = entrypoint
            return entrypoint

        return decorate

    def include(self, /, other_app: App) -> None:
        """Take the functions and classes of another app into this one, with the defaults they have there.

        Raises:
            InvalidError: it is no app, or both have a function or class of one name.
        """
        if not isinstance(other_app, App):
            raise InvalidError(f"App.include takes a modal.App, not {other_app!r}.")
        mine = self._loadable()
        for tag, function in other_app._loadable().items():
            if mine.get(tag, function) is not function:
                what = "function" if tag in other_app._functions else "class"
                raise InvalidError(
                    f"Both apps have a {what} {tag!r}; give one of them another name, for example with "
                    "@app.function(name=...)."
                )
        self._functions.update(other_app._functions)
        self._classes.update(other_app._classes)

    def __repr__(self) -> str:
        return f"modal.App({self._name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return App, (self._name,)


def check_name(name: Optional[str], what: str = "An app's name") -> Optional[str]:
    """Return `name`, or raise InvalidError unless the server would take it."""
    if name is None:
        return None
    allowed = isinstance(name, str) and 0 < len(name) <= 64 and all(char.isalnum() or char in "-._" for char in name)
    if not allowed or not name.isascii():
        raise InvalidError(f"{what} must have 1 to 64 letters, digits, dashes, dots and underscores, not {name!r}.")
    return name


def _same_place(one: Function[Any, Any, Any], other: Function[Any, Any, Any]) -> bool:
    """Whether both are the same function in the source, as when a notebook cell runs again."""
    first, second = one.get_raw_f(), other.get_raw_f()
    return (first.__module__, first.__qualname__) == (second.__module__, second.__qualname__)


def _warn_show_progress() -> None:
    import warnings

    from ..exception import DeprecationError

    warnings.warn(
        "App.run(show_progress=...) has no effect; use `with modal.enable_output():`.", DeprecationError, stacklevel=3
    )
