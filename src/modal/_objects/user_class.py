"""What a user's class is made of: its methods, hooks and parameters, and how an instance of it is made.

Used where the class is decorated and, in containers, where it is run.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._runtime_context import is_local
from ..exception import DeprecationError, InvalidError
from .partial_function import METHOD_MARKS, WEB_MARKS, Mark, Parameter, PartialFunction

if TYPE_CHECKING:
    from .._wire.messages.function import ClassSpec, ParameterSpec
    from .function_options import FunctionOptions

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
AnyPartial = PartialFunction[Any, Any, Any]
_TYPES: dict[str, type] = {"str": str, "int": int}
_INT_RANGE = range(-(2**63), 2**63)


def marked(cls: type) -> dict[str, AnyPartial]:
    """The marked functions of a class by name: those of base classes first, each in the order of definition."""
    found: dict[str, AnyPartial] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, PartialFunction):
                found[name] = value
            else:
                found.pop(name, None)  # replaced by something that is not marked
    return found


def methods_of(cls: type) -> dict[str, AnyPartial]:
    """The functions that callers can name."""
    return {name: one for name, one in marked(cls).items() if not METHOD_MARKS.isdisjoint(one.marks)}


def enter_hooks(cls: type) -> dict[str, Callable[..., Any]]:
    """The functions to run when a container starts, in order: those before a memory snapshot first."""
    return {**_hooks(cls, Mark.ENTER_BEFORE_SNAPSHOT), **_hooks(cls, Mark.ENTER)}


def exit_hooks(cls: type) -> dict[str, Callable[..., Any]]:
    """The functions to run when a container ends, in order."""
    return _hooks(cls, Mark.EXIT)


def build_hooks(cls: type) -> dict[str, AnyPartial]:
    """The functions to run when the image is built, in order."""
    return {name: one for name, one in marked(cls).items() if Mark.BUILD in one.marks}


def _hooks(cls: type, mark: Mark) -> dict[str, Callable[..., Any]]:
    return {name: one.raw_f for name, one in marked(cls).items() if mark in one.marks}


def forget_decorated_bases(cls: type) -> None:
    """Let a class that derives from decorated ones derive from the users' classes alone, also when it is pickled."""
    for one in cls.__mro__:
        bases = vars(one).get("__orig_bases__", ())
        plain = tuple(getattr(base, "_user_cls", None) or base for base in bases)
        if plain != bases:
            one.__orig_bases__ = plain  # type: ignore[attr-defined]


# -- parameters and constructors


def parameters_of(cls: type) -> dict[str, Parameter]:
    """The parameters that a class declares and its callers set, by name."""
    return {name: one for name, one in _declared(cls).items() if one.init}


def _declared(cls: type) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Parameter):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def has_own_constructor(cls: type) -> bool:
    """Whether `__init__` is the user's, or a library's."""
    return cls.__init__ is not object.__init__  # type: ignore[misc]


def constructor_signature(cls: type) -> inspect.Signature:
    """The signature of `__init__` without `self`. Raises ValueError when it has none."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def make_instance(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """An instance of the user's class, as calling it would give if it had the constructor that it declares."""
    if has_own_constructor(cls):
        return cls(*args, **kwargs)
    unknown = [name for name in kwargs if name not in parameters_of(cls)]
    if args or unknown:
        raise TypeError(
            f"{cls.__name__}() got {f'an unexpected parameter {unknown[0]!r}' if unknown else 'arguments'}."
        )
    new: Any = cls.__new__
    instance = new(cls)
    for name, parameter in _declared(cls).items():
        if name in kwargs:
            object.__setattr__(instance, name, kwargs[name])
        elif parameter.has_default:
            object.__setattr__(instance, name, parameter.default)
    return instance


def spec_of(cls: type) -> ClassSpec:
    """Describe a class for the server.

    Raises:
        InvalidError: a parameter is not what parameters can be, or the class has both parameters and a constructor.
    """
    from .._wire.messages.function import ClassSpec, MethodSpec

    parameters = [_parameter_spec(cls, name, one) for name, one in parameters_of(cls).items()]
    has_constructor, needs = False, any(not one.has_default for one in parameters)
    if has_own_constructor(cls):
        if parameters:
            raise InvalidError(
                f"The class {cls.__name__} has both a constructor and modal.parameter() fields: remove its __init__, "
                "and do in a method marked with @modal.enter() what it did."
            )
        signature = _signature_or_none(cls)
        has_constructor = signature is None or any(one.kind not in VARIADIC for one in signature.parameters.values())
        needs = signature is not None and not _binds(signature)
    return ClassSpec(
        methods={name: MethodSpec(is_generator(one)) for name, one in methods_of(cls).items()},
        parameters=parameters,
        has_constructor=has_constructor,
        needs_parameters=needs,
        has_exit_hooks=bool(exit_hooks(cls)),
    )


def is_generator(method: AnyPartial) -> bool:
    """Whether a method yields."""
    given = method.marks.get(Mark.METHOD, {}).get("is_generator")
    if given is not None:
        return bool(given)
    raw = inspect.unwrap(method.raw_f)
    return inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)


def _signature_or_none(cls: type) -> Optional[inspect.Signature]:
    try:
        return constructor_signature(cls)
    except ValueError:  # one of C code
        return None


def _binds(signature: inspect.Signature) -> bool:
    try:
        signature.bind()
    except TypeError:
        return False
    return True


def _parameter_spec(cls: type, name: str, parameter: Parameter) -> ParameterSpec:
    from .._wire.messages.function import ParameterSpec

    kind = _annotated_type(cls, name)
    if kind is None:
        raise InvalidError(
            f"The parameter {name!r} of {cls.__name__} must be annotated with str or int, as in "
            f"`{name}: str = modal.parameter()`."
        )
    spec = ParameterSpec(name, kind, parameter.has_default, parameter.default if parameter.has_default else None)
    if parameter.has_default:
        check_value(cls.__name__, spec, parameter.default)
    return spec


def _annotated_type(cls: type, name: str) -> Optional[str]:
    for base in cls.__mro__:
        annotation = vars(base).get("__annotations__", {}).get(name)
        if annotation is None:
            continue
        if isinstance(annotation, str):
            namespace = getattr(sys.modules.get(base.__module__), "__dict__", {})
            try:
                annotation = eval(annotation, dict(namespace), dict(vars(base)))
            except Exception:  # whatever evaluating user text raises, it is not str or int
                return None
        return next((kind for kind, one in _TYPES.items() if annotation is one), None)
    return None


def check_value(class_name: str, parameter: ParameterSpec, value: Any) -> None:
    """Raise InvalidError unless a parameter can have this value."""
    if type(value) is not _TYPES.get(parameter.type):
        raise InvalidError(
            f"The parameter {parameter.name!r} of {class_name} must be of type {parameter.type}, not {value!r}."
        )
    if isinstance(value, int) and value not in _INT_RANGE:
        raise InvalidError(f"The parameter {parameter.name!r} of {class_name} must fit in 64 bits, not {value!r}.")


def check_values(class_name: str, spec: ClassSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a caller gives for the declared parameters.

    Raises:
        InvalidError: they are not the ones that the class has.
    """
    _refuse_positional(class_name, args)
    known = {parameter.name: parameter for parameter in spec.parameters}
    for name, value in kwargs.items():
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidError(f"The class {class_name} has no parameter {name!r}; {has}.")
        check_value(class_name, known[name], value)
    for parameter in spec.parameters:
        if not parameter.has_default and parameter.name not in kwargs:
            raise InvalidError(f"The class {class_name} needs a value for the parameter {parameter.name!r}.")
    return dict(kwargs)


def _refuse_positional(class_name: str, args: tuple[Any, ...]) -> None:
    if args:
        raise InvalidError(f"The parameters of {class_name} are given by name, as in {class_name}(name=value).")


def pack_parameters(
    class_name: str, spec: ClassSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], by_value: bool
) -> bytes:
    """Parameters as they travel; b"" when there are none. Those by name are for the server to check.

    Raises:
        InvalidError: some are given by position and the class has no constructor.
        SerializationError: an argument of a constructor cannot be pickled.
    """
    if not args and not kwargs:
        return b""
    if not spec.has_constructor:
        _refuse_positional(class_name, args)  # also of a class that was only looked up, whose code is elsewhere
        return json.dumps(dict(kwargs), sort_keys=True, separators=(",", ":")).encode()
    from .._serialization import serialize

    return serialize((args, dict(kwargs)), main_by_value=by_value)


def unpack_parameters(has_constructor: bool, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `pack_parameters` made of arguments. Raises what unpickling raises."""
    if not len(data):
        return (), {}
    if not has_constructor:
        return (), json.loads(bytes(data))
    from .._serialization import deserialize

    args, kwargs = deserialize(data)
    return args, kwargs


def class_options(
    cls: type, spec: ClassSpec, options: FunctionOptions, not_yet: tuple[str, ...] = ()
) -> FunctionOptions:
    """The options of a class with what its methods say.

    Args:
        cls: the user's class.
        spec: what it consists of.
        options: those of its decorator.
        not_yet: what its app uses that this version cannot do.

    Raises:
        InvalidError: the methods do not go together, or not with the options.
    """
    from dataclasses import replace

    from .function_options import with_batches

    _check_methods(cls)
    _warn_constructor(cls, spec)
    methods = methods_of(cls)
    web = [f"@modal.{mark.value}" for one in methods.values() for mark in one.marks if mark in WEB_MARKS]
    options = replace(options, not_yet=options.not_yet + not_yet + tuple(web))
    warm = max((one.marks.get(Mark.METHOD, {}).get("keep_warm") or 0 for one in methods.values()), default=0)
    if warm and not options.scaling.min_containers:  # of @modal.method(), where it used to be
        options = replace(options, scaling=replace(options.scaling, min_containers=warm))
    for name, one in methods.items():
        if Mark.BATCHED in one.marks:
            options = with_batches(
                options, f"{cls.__name__}.{name}", spec.methods[name].is_generator, one.marks[Mark.BATCHED]
            )
    return options


def _warn_constructor(cls: type, spec: ClassSpec) -> None:
    if not spec.has_constructor or not is_local():
        return
    import warnings

    warnings.warn(
        f"The class {cls.__name__} takes parameters by its own constructor, which is deprecated: declare them as "
        "fields, as in `name: str = modal.parameter()`, and move the rest of __init__ to a method marked with "
        "@modal.enter().",
        DeprecationError,
        stacklevel=5,
    )


def _check_methods(cls: type) -> None:
    methods = methods_of(cls)
    for name, hook in enter_hooks(cls).items():
        _check_hook(f"{cls.__name__}.{name}", hook, ())
    for name, hook in exit_hooks(cls).items():
        _check_hook(f"{cls.__name__}.{name}", hook, exit_arguments(hook))
    for name, one in _conflicts(cls):
        raise InvalidError(f"{cls.__name__}.{name} is both a {one} and a method: it can be one of the two.")
    batched = [name for name, one in methods.items() if Mark.BATCHED in one.marks]
    if batched and len(methods) > 1:
        raise InvalidError(
            f"The class {cls.__name__} has the batched method {batched[0]!r}, so it cannot have other methods: "
            "a container runs one batch at a time. Move them to a class of their own."
        )


def _check_hook(name: str, hook: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Refuse what could only fail in a container, or silently do nothing there."""
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise InvalidError(f"The hook {name} yields, so nothing of it would run: hooks are plain functions.")
    if not inspect.isfunction(hook):
        return
    try:
        inspect.signature(hook).bind(None, *arguments)
    except TypeError:
        raise InvalidError(
            f"The hook {name} is called with no argument but self; give what it needs as a modal.parameter() of the "
            "class."
        ) from None


def exit_arguments(hook: Callable[..., Any]) -> tuple[Any, ...]:
    """Exit hooks used to be given an exception's type, value and traceback; there is none."""
    code = getattr(hook, "__code__", None)
    return (None, None, None) if code is not None and code.co_argcount == 4 and not hook.__defaults__ else ()


def _conflicts(cls: type) -> Iterator[tuple[str, str]]:
    hooks = {
        Mark.ENTER: "hook that runs on enter",
        Mark.ENTER_BEFORE_SNAPSHOT: "hook that runs on enter",
        Mark.EXIT: "hook that runs on exit",
        Mark.BUILD: "build step",
    }
    for name, one in methods_of(cls).items():
        for mark, what in hooks.items():
            if mark in one.marks:
                yield name, what
