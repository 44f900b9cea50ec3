from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intermodal.scheduling.fairness import CallQueue, FairQueue


def taken(queue: FairQueue, count: int) -> list[str]:
    return [one for _, ones in queue.take(count) for one in ones]


def test_one_call_comes_out_in_order() -> None:
    queue = FairQueue()
    queue.append("fc", ["1", "2"])
    queue.append("fc", ["3"])
    assert taken(queue, 2) == ["1", "2"]
    assert taken(queue, 9) == ["3"]
    assert queue.size == 0


def test_calls_take_turns() -> None:
    queue = FairQueue()
    queue.append("a", ["a1", "a2", "a3", "a4"])
    queue.append("b", ["b1", "b2"])
    assert [taken(queue, 1) for _ in range(6)] == [["a1"], ["b1"], ["a2"], ["b2"], ["a3"], ["a4"]]


def test_a_large_helping_is_shared() -> None:
    queue = FairQueue()
    queue.append("a", [f"a{n}" for n in range(100)])
    queue.append("b", [f"b{n}" for n in range(100)])
    assert sorted(one[0] for one in taken(queue, 20)) == ["a"] * 10 + ["b"] * 10


def test_what_is_put_back_comes_first() -> None:
    queue = FairQueue()
    queue.append("a", ["1", "2", "3", "4"])
    [(call, first)] = list(queue.take(3))
    queue.put_back(call, first[1:])
    assert taken(queue, 9) == ["2", "3", "4"]


def test_delayed_inputs_come_when_due() -> None:
    queue = FairQueue()
    queue.delay("a", ["late"], False, 5.0)
    queue.release(4.9)
    assert (queue.size, queue.next_due) == (0, 5.0)
    queue.release(5.0)
    assert (taken(queue, 9), queue.next_due) == (["late"], None)


def test_dropping_reaches_queued_and_delayed_inputs_of_that_call_only() -> None:
    queue = FairQueue()
    queue.append("a", ["1", "2", "3"])
    queue.append("b", ["9"])
    queue.delay("a", ["4", "5"], False, 1.0)
    queue.drop("a", {"2", "4"})
    queue.release(1.0)
    assert sorted(taken(queue, 9)) == ["1", "3", "5", "9"]
    queue.append("a", ["6"])
    queue.drop("a", ())
    assert queue.size == 0


def test_a_nested_call_is_noticed_while_it_waits() -> None:
    queue = FairQueue()
    queue.append("a", ["1"], is_nested=True)
    assert queue.has_nested
    taken(queue, 1)
    assert not queue.has_nested


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "back"]), st.integers(1, 10)), max_size=40))
def test_a_call_queue_never_loses_or_reorders(steps: list[tuple[str, int]]) -> None:
    queue, model, out = CallQueue("fc", False), [], []
    numbers = iter(range(10_000))
    for step, count in steps:
        if step == "add":
            new = [str(next(numbers)) for _ in range(count)]
            queue.append(new)
            model.extend(new)
        elif step == "take":
            expected, model = model[:count], model[count:]
            assert queue.take(count) == expected
            out.extend(expected)
        else:
            back = out[-count:]
            del out[len(out) - len(back) :]
            queue.put_back(back)
            model = back + model
        assert queue.size == len(model)
