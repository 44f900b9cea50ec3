"""`modal.Cls`: a class whose methods run in containers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional, Union

from .._renamed import renamed_parameter
from .._sync import blocking
from ..exception import InvalidError
from . import user_class
from .cls_instance import Instance
from .function import Function
from .object import Object

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.function import ClassSpec, FunctionOverrides
    from ..gpu import GPU_T
    from ..retries import Retries
    from .client import Client
    from .function_options import FunctionOptions
    from .secret import Secret
    from .volume import Volume


@renamed_parameter("tag", "name")
async def _lookup(
    app_name: str,
    name: str,
    namespace: Any = None,
    client: Optional[Client] = None,
    environment_name: Optional[str] = None,
    workspace: Optional[str] = None,
) -> Cls:
    """Find a class of a deployed app, at once; else as `from_name`.

    Args:
        app_name: the name that the app is deployed as.
        name: the class's name in the app.
        namespace: no effect.
        client: the connection to use; default: that of the configuration.
        environment_name: the environment of the app; default: as for `from_name`.
        workspace: no effect: there is one.

    Raises:
        NotFoundError: there is no such app or class.
        InvalidError: it is a function.
    """
    cls = Cls.from_name(app_name, name, environment_name=environment_name)
    await cls._hydrate(client)
    return cls


@dataclass(frozen=True)
class ClassOptions:
    """What `with_options` has set: checked parameters of `@app.cls()` by name."""

    given: Mapping[str, Any] = field(default_factory=dict)


class Cls(Object):
    """A class whose methods run in containers, and scale with their inputs.

    Made by decorating a class with `@app.cls()`. Call it to make an instance with parameters; the methods of an
    instance are functions. Instances with the same parameters share their containers, each of which makes the instance
    once and runs its `@modal.enter()` hooks before the first input.
    """

    _user_cls: Optional[type] = None
    _function: Function[Any, Any, Any]  #: the class at the server
    _options = ClassOptions()

    @classmethod
    def _of(cls, user_cls: type, tag: str, options: FunctionOptions, spec: ClassSpec) -> Cls:
        made = cls._new(f"Cls {tag}")
        made._user_cls = user_cls
        made._function = Function._of(user_cls, tag, options, False)
        made._function._cls_spec = spec
        return made

    @classmethod
    def _of_container(cls, user_cls: type, tag: str) -> Cls:
        """The class that a container runs, whether or not its module is there."""
        made = cls._new(f"Cls {tag}")
        made._user_cls = user_cls
        function: Function[Any, Any, Any] = Function._new(f"Function {tag}")
        function._tag, function._main_by_value = tag, user_cls.__module__ != "__main__"
        function._cls_spec = user_class.spec_of(user_cls)
        made._function = function
        return made

    # -- identity

    @classmethod
    @renamed_parameter("tag", "name")
    def from_name(
        cls,
        app_name: str,
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        workspace: Optional[str] = None,
    ) -> Cls:
        """Refer to a class of a deployed app; it is looked up when it is first used.

        Args:
            app_name: the app's name.
            name: the class's.
            namespace: no effect.
            environment_name: the environment; default: that of the configuration.
            workspace: no effect: there is one.
        """
        made = cls._new(f"Cls.from_name({app_name!r}, {name!r})")
        made._function = Function.from_name(app_name, name, namespace, environment_name)
        return made

    lookup = blocking(_lookup)

    @property
    def object_id(self) -> str:
        """The id at the server. Raises InvalidError before the class is loaded."""
        return self._function.object_id

    async def _hydrate(self, client: Optional[Client]) -> None:
        await self._function._bind(client)
        self._require_class()
        self._object_id = self._function._object_id

    def _require_class(self) -> ClassSpec:
        spec = self._spec
        if spec is None or self._function._method:
            raise InvalidError(f"{self._function._tag} is a function, not a class: use modal.Function.from_name.")
        return spec

    @property
    def _spec(self) -> Optional[ClassSpec]:
        """What the class consists of; None while that is not known."""
        return self._function._cls_spec

    def _get_user_cls(self) -> type:
        if self._user_cls is None:
            raise InvalidError(f"The Python code of the class {self._function._tag} is not in this process.")
        return self._user_cls

    # -- instances

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make an instance with these parameters. Nothing is sent before one of its methods is called.

        Raises:
            InvalidError: the class does not take these parameters.
        """
        self._check_arguments(args, kwargs)
        return Instance(self, args, kwargs)

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        spec, tag = self._spec, self._function._tag
        if spec is None or self._function._reference is not None:
            return  # the server checks it against the version that is deployed
        if not spec.has_constructor:
            user_class.check_values(tag, spec, args, kwargs)
        elif self._user_cls is not None:
            try:
                user_class.constructor_signature(self._user_cls).bind(*args, **kwargs)
            except ValueError:  # it has no signature
                return
            except TypeError as error:
                raise TypeError(f"{tag}(): {error}") from None

    async def _bind_parameters(self, rpc: RpcClient, class_id: str, instance: Instance) -> str:
        """The id of the function that serves an instance's parameters; on the bridge's loop."""
        from .._wire.messages.function import FUNCTION_BIND, FunctionBind, FunctionOverrides

        spec = self._require_class()
        self._check_arguments(instance._modal_args, instance._modal_kwargs)
        overrides = await self._overrides(rpc) if self._options.given else FunctionOverrides()
        body = instance._modal_pack(spec)
        if not body and overrides == FunctionOverrides():
            return class_id
        handle, _ = await rpc.unary(FUNCTION_BIND, FunctionBind(class_id, overrides), body)
        return handle.function_id

    # -- options

    def with_options(
        self,
        cpu: Optional[Union[float, tuple[float, float]]] = None,
        memory: Optional[Union[int, tuple[int, int]]] = None,
        gpu: GPU_T = None,
        secrets: Collection[Secret] = (),
        volumes: dict[Union[str, os.PathLike[str]], Volume] = {},  # noqa: B006
        retries: Optional[Union[int, Retries]] = None,
        timeout: Optional[int] = None,
        concurrency_limit: Optional[int] = None,
        allow_concurrent_inputs: Optional[int] = None,
        container_idle_timeout: Optional[int] = None,
    ) -> Cls:
        """The class with other options, whose instances have containers of their own.

        Args: as of `App.cls`; what is not given stays as it is. `secrets` and `volumes` replace all of those
            of the class.

        Raises:
            InvalidError: a value is out of range or of the wrong kind.
        """
        from .function_options import NOTHING, check_options

        given = {
            "cpu": cpu,
            "memory": memory,
            "gpu": gpu,
            "secrets": tuple(secrets) if isinstance(secrets, Collection) else secrets,  # the latter is refused
            "volumes": volumes,
            "retries": retries,
            "timeout": timeout,
            "concurrency_limit": concurrency_limit,
            "allow_concurrent_inputs": allow_concurrent_inputs,
            "container_idle_timeout": container_idle_timeout,
        }
        new = {name: value for name, value in given.items() if value not in (None, (), {})}
        merged = {**self._options.given, **new}
        options = check_options({**NOTHING, **merged})
        if options.not_yet:
            from .._later import not_built_yet

            not_built_yet(f"Cls.with_options({options.not_yet[0]}=...)")
        made = Cls._new(self._what)
        made._user_cls, made._function = self._user_cls, self._function
        made._options = replace(self._options, given=merged)
        return made

    async def _overrides(self, rpc: RpcClient) -> FunctionOverrides:
        from .._wire.messages.function import FunctionOverrides
        from .function_load import LoadedMounts, load_mounted
        from .function_options import NOTHING, check_options

        given = self._options.given
        options = check_options({**NOTHING, **given})
        resources = options.resources
        secret_ids: Optional[list[str]] = None
        if "secrets" in given:
            secret_ids = await self._function._lasting_resolver(rpc).load_all(options.secrets)
        mounted: Optional[LoadedMounts] = None
        if "volumes" in given:
            mounted = await load_mounted(self._function._lasting_resolver(rpc), (), options.mounted)
        return FunctionOverrides(
            cpu=resources.cpu if "cpu" in given else None,
            cpu_limit=resources.cpu_limit,
            memory=resources.memory if "memory" in given else None,
            memory_limit=resources.memory_limit,
            gpu=resources.gpu if "gpu" in given else None,
            secret_ids=secret_ids,
            volumes=mounted.volumes if mounted is not None else None,
            buckets=mounted.buckets if mounted is not None else None,
            retries=options.retries if "retries" in given else None,
            timeout=options.timeout if "timeout" in given else None,
            max_containers=given.get("concurrency_limit"),
            max_concurrent_inputs=given.get("allow_concurrent_inputs"),
            idle_timeout=options.scaling.idle_timeout if "container_idle_timeout" in given else None,
        )

    # -- as a class

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._user_cls is None:
            raise AttributeError(name)
        spec = self._spec
        if spec is not None and name in spec.methods:
            return _NeedsInstance(self._function._tag, name)
        return getattr(self._user_cls, name)

    def __instancecheck__(self, instance: Any) -> bool:
        """Whether it is an instance of the user's class, or one that calling this made."""
        if isinstance(instance, Instance):
            other, mine = instance._modal_cls._function, self._function
            return other is mine or (other._tag, other._reference) == (mine._tag, mine._reference)
        return self._user_cls is not None and isinstance(instance, self._user_cls)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Deriving from a decorated class is deriving from the user's class."""
        return (self._get_user_cls(),)

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_reference, (self._function, self._options)


class _NeedsInstance:
    """A method that is asked of the class rather than of an instance."""

    def __init__(self, cls_name: str, name: str) -> None:
        self.__dict__["_message"] = (
            f"{cls_name}.{name} is a method: make an instance first, as in {cls_name}().{name}.remote(...)."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidError(self.__dict__["_message"])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidError(self.__dict__["_message"])


def _by_reference(function: Function[Any, Any, Any], options: ClassOptions) -> Cls:
    """Make a class that was pickled: a reference, without the Python code."""
    cls = Cls._new(f"Cls {function._tag}")
    cls._function, cls._options = function, options
    return cls
