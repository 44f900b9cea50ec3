"""Parameters of classes, as a hostile client may send them, and what options make of a class."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intermodal.control.bindings import bound_spec, check_parameters
from intermodal.control.function_service import check_spec
from modal._wire.messages.function import (
    PARAMETERS_LIMIT,
    ClassSpec,
    Concurrency,
    FunctionOverrides,
    FunctionSpec,
    MethodSpec,
    ParameterSpec,
    Source,
    SourceKind,
)
from modal.exception import Error, InvalidError, RequestSizeError

NAME, SIZE = ParameterSpec("name", "str"), ParameterSpec("size", "int", True, 2)
CLASS = ClassSpec({"run": MethodSpec()}, [NAME, SIZE], needs_parameters=True)
PICKLED = ClassSpec({"run": MethodSpec()}, has_constructor=True, needs_parameters=True)
SPEC = FunctionSpec("Model", Source(SourceKind.MODULE, "m", "Model"), "im-1", cls=CLASS)


def check(values: object) -> bytes:
    return check_parameters("Model", CLASS, json.dumps(values).encode())


def test_values_have_one_form_and_defaults_are_left_out() -> None:
    assert check({"size": 3, "name": "a"}) == check({"name": "a", "size": 3}) == b'{"name":"a","size":3}'
    assert check({"size": 2, "name": "a"}) == check({"name": "a"}) == b'{"name":"a"}'
    assert check_parameters("Model", ClassSpec(parameters=[SIZE]), b'{"size":2}') == b""
    assert check_parameters("Model", ClassSpec(), b"") == b""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needs a value for the parameter 'name'"),
        ({"name": "a", "extra": 1}, "has no parameter 'extra'; it has name, size"),
        ({"name": 1}, "'name' of Model must be of type str"),
        ({"name": "a", "size": True}, "must be of type int"),
        ({"name": "a", "size": 2.0}, "must be of type int"),
        ({"name": "a", "size": 2**63}, "must be of type int"),
        ({"name": None}, "must be of type str"),
        (["name"], "not a JSON object"),
    ],
)
def test_values_that_the_class_does_not_take_are_refused(values: object, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        check(values)


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 200_000, b"9" * 100_000, b"{}{}", b"NaN"])
def test_bytes_that_are_no_values_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        check_parameters("Model", CLASS, data)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise_an_error(data: bytes) -> None:
    try:
        check_parameters("Model", CLASS, data)
    except Error:
        return


def test_parameters_have_a_size_limit() -> None:
    for spec in (CLASS, PICKLED):
        with pytest.raises(RequestSizeError, match="256 KiB"):
            check_parameters("Model", spec, b"x" * (PARAMETERS_LIMIT + 1))
    assert check_parameters("Model", PICKLED, b"anything") == b"anything"
    with pytest.raises(InvalidError, match="needs parameters"):
        check_parameters("Model", PICKLED, b"")


def test_options_replace_what_they_name_and_nothing_else() -> None:
    assert bound_spec(SPEC, FunctionOverrides()) == SPEC
    other = bound_spec(
        SPEC, FunctionOverrides(cpu=2.0, memory=512, timeout=9.0, max_containers=3, secret_ids=["st-1"]), 2
    )
    assert (other.resources.cpu, other.resources.memory, other.timeout) == (2.0, 512, 9.0)
    assert (other.scaling.max_containers, other.scaling.min_containers) == (3, 2)
    assert other.secret_ids == ["st-1"]
    assert other.resources.gpu == SPEC.resources.gpu
    assert other.concurrency == SPEC.concurrency


def class_of(**changes: object) -> FunctionSpec:
    return dataclasses.replace(SPEC, cls=dataclasses.replace(CLASS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (class_of(methods={"a.b": MethodSpec()}), "must be an identifier"),
        (class_of(methods={f"m{number}": MethodSpec() for number in range(1001)}), "at most 1000 methods"),
        (class_of(parameters=[NAME, NAME]), "different identifiers"),
        (class_of(parameters=[ParameterSpec("x", "list")]), "must be a str or an int"),
        (class_of(parameters=[ParameterSpec("x", "int", True, "1")]), "must be a str or an int"),
        (class_of(has_constructor=True), "cannot have a constructor too"),
        (
            dataclasses.replace(
                class_of(methods={"a": MethodSpec(), "b": MethodSpec()}), concurrency=Concurrency(batch_max_size=2)
            ),
            "cannot have other methods",
        ),
    ],
)
def test_a_class_that_no_sdk_sends_is_refused(spec: FunctionSpec, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        check_spec(spec, 0)
