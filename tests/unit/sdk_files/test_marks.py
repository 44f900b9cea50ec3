"""Decorators that mark, and declarations of what comes later."""

from __future__ import annotations

import importlib
import inspect
import warnings

import pytest

from modal import partial_function as marks
from modal._later import not_built_yet
from modal._objects.partial_function import Mark, Parameter, PartialFunction
from modal.call_graph import InputInfo, InputStatus
from modal.exception import DeprecationError, InvalidError
from modal.queue import Queue


def test_decorators_mark_and_stack() -> None:
    @marks.batched(max_batch_size=4, wait_ms=100)
    @marks.method(is_generator=True)
    def f(self, x):
        return x

    assert isinstance(f, PartialFunction)
    assert f.marks == {
        Mark.METHOD: {"is_generator": True, "keep_warm": None},
        Mark.BATCHED: {"max_batch_size": 4, "wait_ms": 100},
    }
    assert not f.is_web


def test_methods_of_a_class_that_is_not_an_app_class_are_plain() -> None:
    class Model:
        name: str = marks.parameter(default="x")

        @marks.enter(snap=True)
        def load(self) -> None:
            self.loaded = True

        @marks.method()
        def predict(self, x: int) -> int:
            return x + 1

        @marks.exit()
        def close(self) -> None: ...

    model = Model()
    model.load()
    assert model.predict(1) == 2
    assert Model.load.marks == {Mark.ENTER_BEFORE_SNAPSHOT: {}}
    assert Model.close.marks == {Mark.EXIT: {}}
    assert Model.name == Parameter("x", True)


@pytest.mark.parametrize(
    ("decorator", "mark"),
    [
        (marks.web_endpoint(method="POST", docs=True), Mark.WEB_ENDPOINT),
        (marks.asgi_app(label="x", custom_domains=["a.example"]), Mark.ASGI_APP),
        (marks.wsgi_app(requires_proxy_auth=True), Mark.WSGI_APP),
        (marks.web_server(8000, startup_timeout=1), Mark.WEB_SERVER),
    ],
)
def test_web_decorators_mark(decorator, mark: Mark) -> None:
    partial = decorator(lambda: None)
    assert partial.is_web
    assert "label" in partial.marks[mark]


@pytest.mark.parametrize(
    "name", ["method", "enter", "exit", "build", "batched", "web_endpoint", "asgi_app", "wsgi_app"]
)
def test_a_decorator_without_parentheses_says_how_to_write_it(name: str) -> None:
    arguments = {"max_batch_size": 1, "wait_ms": 1} if name == "batched" else {}
    with pytest.raises(InvalidError, match=rf"@modal\.{name}\("):
        getattr(marks, name)(lambda: None, **arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: marks.batched(max_batch_size=0, wait_ms=1),
        lambda: marks.batched(max_batch_size=2, wait_ms=-1),
        lambda: marks.web_server(0),
        lambda: marks.web_server("80"),
        lambda: marks.web_server(80, startup_timeout=0),
        lambda: marks.asgi_app(custom_domains="a.example"),
        lambda: marks.method()(3),
        lambda: marks.enter()(int),
    ],
)
def test_bad_arguments_of_decorators_are_refused(make) -> None:
    with pytest.raises(InvalidError):
        make()


def test_deprecated_decorators_warn() -> None:
    with pytest.warns(DeprecationError, match="Volume"):
        marks.build()
    with pytest.warns(DeprecationError, match="keep_warm"):
        marks.method(keep_warm=1)
    with pytest.warns(DeprecationError, match="no effect"):
        marks.asgi_app(wait_for_response=False)


def test_a_marked_function_cannot_be_called() -> None:
    with pytest.raises(InvalidError, match="only marked"):
        marks.asgi_app()(lambda: None)()


def test_a_missing_part_is_one_kind_of_error_that_names_it() -> None:
    with pytest.raises(InvalidError, match=r"^modal\.X is not available in this version of intermodal yet\. Do Y\.$"):
        not_built_yet("modal.X", "Do Y.")
    with pytest.raises(NotImplementedError):
        not_built_yet("modal.X")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sandbox", "Sandbox"),
        ("proxy", "Proxy"),
    ],
)
def test_every_method_of_a_declared_class_names_itself(module: str, name: str) -> None:
    cls = getattr(importlib.import_module(f"modal.{module}"), name)
    tried = 0
    for attribute, value in vars(cls).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if attribute.startswith("_") or not inspect.isfunction(function) or attribute == "validate_partition_key":
            continue
        parameters = inspect.signature(function).parameters.values()
        required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        with (
            warnings.catch_warnings(),
            pytest.raises(InvalidError, match=rf"modal\.{name}\.{attribute} is not available"),
        ):
            function(*[None] * len(required))
        tried += 1
    assert tried


def test_partition_keys_are_checked() -> None:
    assert Queue.validate_partition_key(None) == b""
    assert Queue.validate_partition_key("é") == "é".encode()
    for wrong in ("", "x" * 65):
        with pytest.raises(InvalidError, match="64 bytes"):
            Queue.validate_partition_key(wrong)


def test_an_unknown_input_status_is_pending() -> None:
    assert InputStatus(99) is InputStatus.PENDING
    assert InputInfo("in-1", "fc-1", "ta-1", InputStatus.SUCCESS, "f", "m", []).children == []
