"""A queue's partitions, against a model of lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intermodal.machines.queue import QueueState
from modal._wire.messages.queue import PARTITION_ITEMS, PARTITIONS

_NAMES = st.sampled_from(["", "a", "b"])
_OPERATIONS = st.one_of(
    st.tuples(st.just("put"), _NAMES, st.lists(st.binary(max_size=3), min_size=1, max_size=4)),
    st.tuples(st.just("take"), _NAMES, st.integers(1, 5)),
    st.tuples(st.just("take and give back"), _NAMES, st.integers(1, 5)),
    st.tuples(st.just("undo"), _NAMES, st.integers(1, 4)),
    st.tuples(st.just("clear"), _NAMES, st.none()),
    st.tuples(st.just("expire"), _NAMES, st.none()),
)


@given(st.lists(_OPERATIONS, max_size=40))
def test_it_does_what_lists_do(operations: list[tuple[str, str, object]]) -> None:
    state, model = QueueState(7), {name: [] for name in ("", "a", "b")}  # type: ignore[var-annotated]
    numbers: list[int] = []
    now = 0.0
    for what, name, argument in operations:
        now += 1.0
        if what == "put":
            numbers += [item.number for item in state.put(name, argument, now + 10)]  # type: ignore[arg-type]
            model[name] += argument
        elif what == "undo":
            before = state.expires_at(name)
            state.put(name, [b"x"] * argument, now + 99)  # type: ignore[operator]
            state.undo_put(name, argument, before)  # type: ignore[arg-type]
        elif what == "clear":
            state.clear(name)
            model[name] = []
        elif what == "expire":
            for gone in state.due(now + 5):
                state.clear(gone)
                model[gone] = []
        else:
            expires_at = state.expires_at(name)
            taken = state.take(name, argument, 100)  # type: ignore[arg-type]
            assert [item.value for item in taken] == model[name][:argument]  # type: ignore[misc]
            if what == "take":
                del model[name][: len(taken)]
            elif taken:
                state.give_back(name, taken, expires_at)
        assert {name: [item.value for item in state.after(name, 0, 99)] for name in model} == model
        assert state.total() == sum(map(len, model.values()))
        assert all(state.length(name) == len(model[name]) for name in model)
    assert numbers == sorted(set(numbers))


def test_items_that_are_given_back_in_any_order_are_in_theirs() -> None:
    state = QueueState(0)
    state.put("", [bytes([number]) for number in range(6)], 9.0)
    first, second, third = (state.take("", 2, 99) for _ in range(3))
    for items in (second, first, third):
        state.give_back("", items, 9.0)
    assert [item.value for item in state.take("", 9, 99)] == [bytes([number]) for number in range(6)]


def test_a_take_is_bounded_in_bytes_but_gives_one() -> None:
    state = QueueState(0)
    state.put("", [b"12345", b"123", b"1"], 1.0)
    assert [item.size for item in state.take("", 9, 3)] == [5]
    assert [item.size for item in state.take("", 9, 3)] == [3]
    assert [item.size for item in state.take("", 9, 3)] == [1]
    assert state.take("", 9, 3) == []


def test_room_in_a_partition_and_for_partitions() -> None:
    state = QueueState(0)
    state.put("p", [b""] * (PARTITION_ITEMS - 1), 1.0)
    assert state.has_room("p", 1)
    assert not state.has_room("p", 2)
    assert not state.has_room("new", PARTITION_ITEMS + 1)
    for number in range(PARTITIONS - 1):
        state.put(str(number), [b""], 2.0)
    assert not state.has_room("new", 1)
    assert state.has_room("0", 1)
    assert state.due(1.5) == ["p"]
    state.clear("p")
    assert state.has_room("new", 1)


def test_items_after_a_number() -> None:
    state = QueueState(5)
    state.put("", [b"a", b"b", b"c"], 1.0)
    assert [item.number for item in state.after("", 0, 2)] == [5, 6]
    assert [item.number for item in state.after("", 5, 9)] == [6, 7]
    assert state.after("", 7, 9) == []
    assert state.after("none", 0, 9) == []
