"""Programs that still use the old names of parameters go on working."""

from __future__ import annotations

import inspect

import pytest

import modal
from modal.exception import DeprecationError


def test_the_old_name_works_and_is_warned_of() -> None:
    with pytest.warns(DeprecationError, match="'tag' is now called 'name'"):
        function = modal.Function.from_name("app", tag="f")  # type: ignore[call-arg]
    assert repr(function) == repr(modal.Function.from_name("app", "f"))


def test_both_names_together_are_an_error() -> None:
    with pytest.warns(DeprecationError), pytest.raises(TypeError, match="name"):
        modal.Function.from_name("app", "f", tag="g")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="tag"):
        modal.Function.from_name("app", name="f", tag="g")  # type: ignore[call-arg]


def test_the_signature_is_that_of_the_function() -> None:
    assert next(iter(inspect.signature(modal.App.lookup).parameters)) == "name"
    assert "label" not in inspect.signature(modal.Dict.delete).parameters


@pytest.mark.parametrize("kind", [modal.Dict, modal.Queue, modal.Volume, modal.NetworkFileSystem, modal.Secret])
def test_named_objects_had_labels(kind: type) -> None:
    with pytest.warns(DeprecationError, match="'label' is now called 'name'"):
        assert "mine" in repr(kind.from_name(label="mine"))  # type: ignore[attr-defined]
