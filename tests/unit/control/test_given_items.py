"""What gets were given, for as long as it may be given back."""

from __future__ import annotations

import pytest

from intermodal.control import given_items
from intermodal.control.given_items import Given, GivenItems


def given(count: int, queue_id: str = "qu-1", partition: str = "p") -> Given:
    return Given(queue_id, partition, list(range(count)), 9.0)


def test_a_get_is_found_by_its_key_until_it_is_given_back() -> None:
    items, one = GivenItems(), given(3)
    items.remember(("key",), one)
    assert items.find(("key",), "qu-1", "p", 2) is one
    assert items.find(("key",), "qu-1", "p", 3) is one
    items.forget(("key",))
    items.forget(("key",))
    assert items.find(("key",), "qu-1", "p", 2) is None


def test_only_what_was_given_is_found() -> None:
    items = GivenItems()
    items.remember(("key",), given(3))
    for key, queue_id, partition, count in [
        ("other", "qu-1", "p", 1),
        ("key", "qu-2", "p", 1),
        ("key", "qu-1", "q", 1),
        ("key", "qu-1", "p", 4),
        ("key", "qu-1", "p", 0),
    ]:
        assert items.find((key,), queue_id, partition, count) is None


def test_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_items, "_GIVEN", 10)
    items = GivenItems()
    for number in range(6):
        items.remember((number,), given(3))
        items.remember((number,), given(3))  # a key counts once
    assert [number for number in range(6) if items.find((number,), "qu-1", "p", 1)] == [3, 4, 5]
    items.remember(("large",), given(20))
    assert items.find(("large",), "qu-1", "p", 20)
    assert not items.find((5,), "qu-1", "p", 1)
