"""Functions that serve one set of parameters of a class: how they follow from the class. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from intermodal.control.functions import Function
from intermodal.model.ids import derived_id
from intermodal.store.interface import BindingRecord
from modal._wire.codec import decode, encode
from modal._wire.messages.function import (
    PARAMETER_TYPES,
    PARAMETERS_LIMIT,
    ClassSpec,
    FunctionOverrides,
    FunctionSpec,
    ParameterSpec,
)
from modal.exception import InvalidError, RequestSizeError

_TYPES: dict[str, type] = {"str": str, "int": int}
_INT_RANGE = range(-(2**63), 2**63)
_SHOWN = 60  # characters of parameters
_MOST_METHODS = 1000
_MOST_PARAMETERS = 1000


def bind(cls: Function, overrides: FunctionOverrides, parameters: bytes) -> BindingRecord:
    """The binding of a class to parameters, the same for the same ones.

    Args:
        cls: the class.
        overrides: of `Cls.with_options`.
        parameters: checked values, in their one form.
    """
    encoded = encode(overrides)
    spelled = json.dumps(encoded, sort_keys=True).encode()
    function_id = derived_id("fu", cls.function_id.encode(), spelled, parameters)
    return BindingRecord(function_id, cls.function_id, cls.app_id, parameters, encoded)


def bound_function(cls: Function, binding: BindingRecord) -> Function:
    """The function that serves a binding. Raises `InvalidError` when its overrides do not go with the class."""
    function = Function(binding.function_id, cls.app_id, cls.revision, binding)
    follow(function, cls)
    function.shown_parameters = shown_parameters(binding, cls.spec)
    return function


def follow(function: Function, cls: Function) -> None:
    """Make a bound function what its class is now."""
    binding = function.binding
    assert binding is not None
    if cls.spec.cls is None:
        raise InvalidError(f"{cls.spec.name} is no class any more.")
    check_parameters(cls.spec.name, cls.spec.cls, binding.parameters)
    overrides = decode(FunctionOverrides, binding.overrides)
    function.revision = replace(cls.revision, spec=bound_spec(cls.spec, overrides, binding.min_containers))


def shown_parameters(binding: BindingRecord, spec: FunctionSpec) -> str:
    """The parameters of a binding in short, as in ``(name='a', size=3)``; pickled ones are told apart by the id."""
    parts = []
    if spec.cls is not None and spec.cls.has_constructor and binding.parameters:
        parts.append(f"…{binding.function_id[-4:]}")
    elif binding.parameters:
        parts += [f"{name}={_short(value)}" for name, value in _values(spec.name, binding.parameters).items()]
    if binding.overrides:
        parts.append("with options")
    text = ", ".join(parts)
    return f"({text if len(text) <= _SHOWN else text[:_SHOWN] + '…'})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN // 2 else text[: _SHOWN // 2] + "…'"


def bound_spec(spec: FunctionSpec, overrides: FunctionOverrides, min_containers: int | None = None) -> FunctionSpec:
    """The spec of a class with some of it replaced.

    Raises:
        InvalidError: the class is batched and is to run several inputs at a time.
    """
    resources, scaling, concurrency = spec.resources, spec.scaling, spec.concurrency
    if overrides.cpu is not None:
        resources = replace(resources, cpu=overrides.cpu, cpu_limit=overrides.cpu_limit)
    if overrides.memory is not None:
        resources = replace(resources, memory=overrides.memory, memory_limit=overrides.memory_limit)
    if overrides.gpu is not None:
        resources = replace(resources, gpu=overrides.gpu)
    if overrides.idle_timeout is not None:
        scaling = replace(scaling, idle_timeout=overrides.idle_timeout)
    if overrides.max_containers is not None:
        scaling = replace(scaling, max_containers=overrides.max_containers)
    if min_containers is not None:
        scaling = replace(scaling, min_containers=min_containers)
    if overrides.max_concurrent_inputs is not None:
        concurrency = replace(concurrency, max_concurrent_inputs=overrides.max_concurrent_inputs)
    return replace(
        spec,
        resources=resources,
        scaling=scaling,
        concurrency=concurrency,
        secret_ids=spec.secret_ids if overrides.secret_ids is None else overrides.secret_ids,
        volumes=spec.volumes if overrides.volumes is None else overrides.volumes,
        buckets=spec.buckets if overrides.volumes is None else overrides.buckets or [],
        retries=spec.retries if overrides.retries is None else overrides.retries,
        timeout=spec.timeout if overrides.timeout is None else overrides.timeout,
    )


def class_rules(spec: ClassSpec, is_batched: bool) -> Iterator[tuple[bool, str]]:
    """What must hold of a class, and the sentence that says so."""
    yield len(spec.methods) <= _MOST_METHODS, f"a class may have at most {_MOST_METHODS} methods"
    yield all(name.isidentifier() for name in spec.methods), "a method's name must be an identifier"
    yield len(spec.parameters) <= _MOST_PARAMETERS, f"a class may have at most {_MOST_PARAMETERS} parameters"
    names = [parameter.name for parameter in spec.parameters]
    yield (
        len(set(names)) == len(names) and all(name.isidentifier() for name in names),
        "the names of parameters must be different identifiers",
    )
    yield (
        all(
            one.type in PARAMETER_TYPES and (not one.has_default or _fits(one, one.default)) for one in spec.parameters
        ),
        "a parameter must be a str or an int, and so must its default",
    )
    yield not (spec.parameters and spec.has_constructor), "a class with parameters cannot have a constructor too"
    batched = [method for method in spec.methods.values() if is_batched]
    yield (
        not batched or (len(batched) == 1 and not batched[0].is_generator),
        "a class with a batched method cannot have other methods",
    )


def check_parameters(name: str, spec: ClassSpec, data: bytes) -> bytes:
    """The values of a class's parameters in their one form; b"" when all are the defaults.

    Args:
        name: the class's, for errors.
        spec: the class.
        data: what a client sent.

    Raises:
        RequestSizeError: it is too large.
        InvalidError: it is not what the class takes.
    """
    if len(data) > PARAMETERS_LIMIT:
        raise RequestSizeError(
            f"The parameters of {name} take {len(data)} bytes, over the limit of {PARAMETERS_LIMIT >> 10} KiB; put "
            "large data in a Volume and pass its path."
        )
    if spec.has_constructor:
        if not data and spec.needs_parameters:
            raise InvalidError(f"The class {name} needs parameters: make an instance with {name}(...).")
        return data
    values = _values(name, data)
    known = {parameter.name: parameter for parameter in spec.parameters}
    for key, value in values.items():
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidError(f"The class {name} has no parameter {key[:100]!r}; {has}.")
        if not _fits(known[key], value):
            raise InvalidError(f"The parameter {key!r} of {name} must be of type {known[key].type}.")
    missing = [one.name for one in spec.parameters if not one.has_default and one.name not in values]
    if missing:
        raise InvalidError(f"The class {name} needs a value for the parameter {missing[0]!r}.")
    given = {key: value for key, value in values.items() if not _is_default(known[key], value)}
    return json.dumps(given, sort_keys=True, separators=(",", ":")).encode() if given else b""


def _values(name: str, data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidError(f"The parameters of {name} are not a JSON object.")
    return values


def _fits(parameter: ParameterSpec, value: Any) -> bool:
    if type(value) is not _TYPES.get(parameter.type):
        return False
    return not isinstance(value, int) or value in _INT_RANGE


def _is_default(parameter: ParameterSpec, value: Any) -> bool:
    return parameter.has_default and value == parameter.default
