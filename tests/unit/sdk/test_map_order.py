"""Outputs in order, and how inputs are put together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal._calls.map_outputs import Order, starred, zipped
from modal.exception import InvalidError


@given(st.permutations(range(30)))
def test_whatever_order_outputs_arrive_in_they_leave_in_that_of_the_inputs(arrivals: list[int]) -> None:
    order: Order[int] = Order(ordered=True)
    assert [value for index in arrivals for value in order.add(index, index)] == list(range(30))


@given(st.permutations(range(30)))
def test_unordered_outputs_leave_as_they_arrive(arrivals: list[int]) -> None:
    order: Order[int] = Order(ordered=False)
    assert [value for index in arrivals for value in order.add(index, index)] == list(arrivals)


def test_inputs_are_zipped_to_the_shortest() -> None:
    source: Any = zipped([[1, 2, 3], "ab"])
    assert list(source) == [(1, "a"), (2, "b")]


def test_what_cannot_be_iterated_over_is_refused() -> None:
    for bad in ([], [1], [[1], None]):
        with pytest.raises(InvalidError, match="iterable"):
            zipped(bad)
    with pytest.raises(InvalidError, match="starmap"):
        starred(1)
    source: Any = starred([1])
    with pytest.raises(InvalidError, match="sequences"):
        list(source)
