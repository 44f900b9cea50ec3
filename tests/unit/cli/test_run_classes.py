"""`modal run file.py::Class.method`: which method is meant, and its options."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType

import pytest

from modal.cli.class_method import ClassMethod
from modal.cli.errors import CliError
from modal.cli.import_app import AppReference, Runnable, find_runnable
from modal.cli.options import build_parameters

TEXT = """
from __future__ import annotations
import modal
app = modal.App("run-classes")

@app.cls()
class Model:
    "A model."
    size: int = modal.parameter()
    name: str = modal.parameter(default="x")

    @modal.method()
    def predict(self, count: int, *rest, is_fast: bool = False):
        "Predict."

    @modal.method()
    def values(self, n: Optional[int] = None):
        yield 1

@app.cls()
class Single:
    size: str = modal.parameter(default="a")
    @modal.method()
    def only(self, size: int): ...

class Plain: ...
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    made = ModuleType("run_classes")
    exec(compile(textwrap.dedent(TEXT).replace("Optional[int]", "int"), "run_classes.py", "exec"), made.__dict__)
    return made


def find(module: ModuleType, name: str) -> Runnable:
    return find_runnable(module, AppReference("app.py", name, False))


def test_a_method_is_found_and_its_options_are_those_of_class_and_method(module: ModuleType) -> None:
    found = find(module, "Model.predict")
    assert isinstance(found.target, ClassMethod)
    assert find(module, "app.Model.predict").name == found.name == "Model.predict"
    options = {option.name: option for option in build_parameters(found.raw_function)}
    assert set(options) == {"count", "__rest", "is_fast", "size", "name"}
    assert (options["size"].required, options["name"].default, options["count"].required) == (True, "x", True)
    assert inspect.getdoc(found.raw_function) == "Predict."
    assert not found.target.is_generator
    assert find(module, "Model.values").target.is_generator


def test_a_class_with_one_method_stands_for_it(module: ModuleType) -> None:
    assert find(module, "Single").name == "Single.only"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Model", "Name one, as in `Model.predict`"),
        ("Model.predcit", "it has `predict` and `values`"),
        ("Plain.method", "belongs to no app"),
    ],
)
def test_what_names_no_method_is_refused_with_what_there_is(module: ModuleType, name: str, words: str) -> None:
    with pytest.raises(CliError, match=words):
        find(module, name)


def test_a_parameter_of_both_cannot_be_an_option(module: ModuleType) -> None:
    with pytest.raises(CliError, match="`size` is a parameter of the class Single and of its method `only`"):
        build_parameters(find(module, "Single.only").raw_function)
