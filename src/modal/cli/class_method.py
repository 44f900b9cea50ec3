"""A method of a class as what `modal run` runs: its options are the parameters of the class and of the method."""

from __future__ import annotations

import inspect
from typing import Any, Callable

from modal._objects import user_class

from .errors import CliError

_TYPES = {"str": str, "int": int}


class ClassMethod:
    """The method `name` of a decorated class. Called like a function, it makes the instance that it needs.

    Raises:
        CliError: a parameter of the class and one of the method have the same name.
    """

    def __init__(self, cls: Any, name: str) -> None:
        self.cls = cls
        self.name = name
        self.is_generator: bool = cls._spec.methods[name].is_generator
        self._raw: Callable[..., Any] = inspect.unwrap(user_class.methods_of(cls._get_user_cls())[name].raw_f)
        self._constructor = _constructor_parameters(cls)

    def get_raw_f(self) -> Callable[..., Any]:
        """Something with the signature and the documentation of both."""
        method = list(inspect.signature(self._raw).parameters.values())[1:]
        both = sorted({one.name for one in method} & {one.name for one in self._constructor})
        if both:
            raise CliError(
                f"`{both[0]}` is a parameter of the class {self.cls._get_user_cls().__name__} and of its method "
                f"`{self.name}`, so it cannot be an option: rename one of the two, or call the method from a "
                "local entrypoint."
            )
        parameters = sorted([*method, *self._constructor], key=lambda one: one.kind)
        return _Shape(parameters, self._raw, self.cls._get_user_cls())

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method in a container."""
        method, rest = self._split(kwargs)
        return method.remote(*args, **rest)

    def remote_gen(self, *args: Any, **kwargs: Any) -> Any:
        """Run the generator in a container."""
        method, rest = self._split(kwargs)
        return method.remote_gen(*args, **rest)

    def _split(self, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        names = {one.name for one in self._constructor}
        instance = self.cls(**{name: value for name, value in kwargs.items() if name in names})
        return getattr(instance, self.name), {name: value for name, value in kwargs.items() if name not in names}


class _Shape:
    """A callable that has the looks of a function and does nothing."""

    def __init__(self, parameters: list[inspect.Parameter], raw: Callable[..., Any], cls: type) -> None:
        self.__signature__ = inspect.Signature(parameters)
        self.__name__ = f"{cls.__name__}.{raw.__name__}"
        self.__doc__ = inspect.getdoc(raw) or inspect.getdoc(cls)
        own = getattr(cls.__init__, "__globals__", {})  # type: ignore[misc]
        self.__globals__ = {**own, **getattr(raw, "__globals__", {})}

    def __call__(self) -> None:
        """It is only looked at."""


def _constructor_parameters(cls: Any) -> list[inspect.Parameter]:
    """The parameters of a class, to be given by name."""
    spec = cls._spec
    if not spec.has_constructor:
        return [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=one.default if one.has_default else inspect.Parameter.empty,
                annotation=_TYPES[one.type],
            )
            for one in spec.parameters
        ]
    try:
        signature = user_class.constructor_signature(cls._get_user_cls())
    except ValueError:  # one of C code, which does not say
        return []
    named = [one for one in signature.parameters.values() if one.kind not in user_class.VARIADIC]
    return [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in named]
