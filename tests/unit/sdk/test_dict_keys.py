"""The bytes of a Dict's keys: what is stored must be found again, by every version."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal._objects.dict import _key_of, key_from
from modal.exception import RequestSizeError


def pickled(key: Any) -> bytes:
    """As a pickler without back references writes it."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 4)
    pickler.fast = True
    pickler.dump(key)
    return file.getvalue()


@given(st.one_of(st.text(), st.characters(), st.integers(), st.booleans(), st.binary(), st.floats(allow_nan=False)))
def test_quick_forms_of_keys_are_those_of_the_pickler(key: Any) -> None:
    assert _key_of(key) == pickled(key)
    assert key_from(_key_of(key)) == key


@pytest.mark.parametrize(
    "key", ["", "\ud800", "\U0001f600" * 63, "x" * 64, "x" * 300, 2**63, -(2**63), 2**3000, None, ("a",)]
)
def test_keys_at_the_borders_of_the_quick_forms(key: Any) -> None:
    assert _key_of(key) == pickled(key)
    assert key_from(_key_of(key)) == key


def test_equal_texts_made_in_different_ways_are_one_key() -> None:
    once = "".join(["a", "b"])
    assert _key_of((once, once)) == _key_of(("ab", "".join(["a", "b"])))


def test_a_key_that_is_too_long_is_refused() -> None:
    for key in ("x" * 2**21, b"x" * 2**21, 1 << 2**24):
        with pytest.raises(RequestSizeError, match="1 MiB"):
            _key_of(key)
