"""Command line options from a function's annotated parameters."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import typing
from typing import Any, Callable, Optional, Union

import click

from .errors import CliError, near_matches

DATETIME_FORMATS = [
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S%z",
]
_SUPPORTED = "str, int, float, bool, datetime.datetime, or Optional of these"
_TYPES: dict[Any, Any] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
    datetime.datetime: click.DateTime(DATETIME_FORMATS),
}
REST = "__rest"  #: the click parameter that holds the values of `*args`


@dataclasses.dataclass(frozen=True)
class EntrypointArguments:
    """The values for a call of the user's function."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def build_parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    """Return one option a parameter of `function`; `*args` takes whatever is left.

    Raises:
        CliError: a parameter's annotation cannot be an option; the message names the parameter.
    """
    made: list[click.Parameter] = []
    for parameter in _signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue  # takes nothing, which is always right
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            made.append(click.Argument([REST], nargs=-1, type=click.UNPROCESSED, metavar=f"[{parameter.name}]..."))
            continue
        made.append(_option(parameter, function))
    return made


def collect_arguments(function: Callable[..., Any], values: dict[str, Any]) -> EntrypointArguments:
    """Turn the parsed `values` into the arguments of a call of `function`."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    parameters = _signature(function).parameters.values()
    takes_rest = any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters)
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(values.get(REST, ()))
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY or (
            parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and takes_rest
        ):
            args.append(values[parameter.name])
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            kwargs[parameter.name] = values[parameter.name]
    return EntrypointArguments(tuple(args), kwargs)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise CliError(f"The parameters of {function!r} cannot be read: {error}.") from error


def _option(parameter: inspect.Parameter, function: Callable[..., Any]) -> click.Option:
    kind = _option_type(parameter, function)
    flag = parameter.name.replace("_", "-").strip("-") or parameter.name
    required = parameter.default is inspect.Parameter.empty
    settings: dict[str, Any] = {"type": _TYPES[kind], "required": required}
    if not required:
        settings["default"] = parameter.default
        settings["show_default"] = parameter.default is not None
    if kind is bool:
        settings["type"] = None
        settings["is_flag"] = True
        return click.Option([f"--{flag}/--no-{flag}", parameter.name], **settings)
    if kind is datetime.datetime and isinstance(parameter.default, datetime.datetime):
        settings["show_default"] = parameter.default.isoformat()
    return click.Option([f"--{flag}", parameter.name], **settings)


def _option_type(parameter: inspect.Parameter, function: Callable[..., Any]) -> type:
    """The supported type that the parameter's annotation means."""
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty:
        # Without an annotation the default tells the type, and text is the rest.
        default_type = type(parameter.default)
        return default_type if default_type in _TYPES else str
    for _ in range(2):  # quotes within postponed annotations make text of text
        if isinstance(annotation, str):
            annotation = _evaluate(annotation, function)
    if annotation is Any:
        return str
    alternatives = set(_alternatives(annotation)) - {type(None)}
    if len(alternatives) == 1:
        (found,) = alternatives
        if isinstance(found, typing.ForwardRef):
            found = _evaluate(found.__forward_arg__, function)
        if isinstance(found, typing.Hashable) and found in _TYPES:
            return typing.cast(type, found)
    shown = parameter.annotation if isinstance(parameter.annotation, str) else inspect.formatannotation(annotation)
    raise CliError(
        f"The parameter `{parameter.name}` of `{function.__name__}` is annotated with `{shown}`, which cannot be given "
        f"on the command line: annotate it with {_SUPPORTED}."
    )


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a Union, or the annotation alone."""
    origin = typing.get_origin(annotation)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return list(typing.get_args(annotation))
    if origin is not None and origin is getattr(typing, "Annotated", None):
        return _alternatives(typing.get_args(annotation)[0])
    return [annotation]


def _evaluate(annotation: str, function: Callable[..., Any]) -> Any:
    """The object an annotation written as text means; the text itself when it means nothing here."""
    namespace = getattr(function, "__globals__", {})
    try:
        return eval(annotation, namespace)
    except Exception:  # whatever evaluating user text raises, the annotation is not supported
        parts = [part.strip() for part in annotation.split("|")]
        if len(parts) > 1 and all(parts):
            # Python 3.9 does not know `int | None`.
            members = tuple(None if part == "None" else _evaluate(part, function) for part in parts)
            if not any(isinstance(member, str) for member in members):
                return Union[members]
        return annotation


class EntrypointCommand(click.Command):
    """The command that parses the options of one entrypoint."""

    #: Options that belong before the reference; naming one after it gets a hint.
    run_options: frozenset[str] = frozenset()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            if name in self.run_options:
                raise CliError(f"`{name}` is an option of `modal run`: put it before the reference.", 2) from None
            known = [opt for param in self.params for opt in (*param.opts, *param.secondary_opts) if opt[:1] == "-"]
            hint = near_matches(name, [*known, "--help"])
            raise CliError(f"`{self.name}` has no option `{name}`. {hint}".rstrip(), 2) from None


def short_help(function: Callable[..., Any]) -> Optional[str]:
    """The function's docstring as help text."""
    return inspect.getdoc(function)
