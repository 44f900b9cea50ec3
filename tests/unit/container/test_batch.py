"""Batches in the runner, without sockets or threads."""

from __future__ import annotations

from typing import Any

import pytest

from modal._container.batch import Batch, BatchLoop, BatchTask, NothingToRun
from modal._container.machine import CANCELLED, STOPPED, TIMED_OUT, DropInputs, Exit, Interrupt, ReturnInputs
from modal._serialization import deserialize, deserialize_failure, serialize

NOTHING = memoryview(b"")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make(size: int = 3, wait: float = 1.0) -> tuple[BatchLoop, Clock]:
    clock = Clock()
    return BatchLoop(size, wait, clock), clock


def push(machine: BatchLoop, *names: str, **arguments: Any) -> None:
    payload = serialize(((), arguments))
    records = [{"input_id": name, "call_id": "fc-1", "size": len(payload)} for name in names]
    machine.handle({"t": "RunInputs", "inputs": records}, memoryview(payload * len(names)))


def names(batch: Any) -> list[str]:
    assert isinstance(batch, Batch)
    return [one.input_id for one in batch.members]


def test_a_full_batch_begins_at_once() -> None:
    machine, _ = make()
    push(machine, "a", "b", "c", "d")
    assert machine.until_next() == 0.0
    assert names(machine.take()) == ["a", "b", "c"]


def test_a_batch_that_is_not_full_begins_when_its_first_input_has_waited() -> None:
    machine, clock = make(wait=1.0)
    push(machine, "a")
    clock.now += 0.6
    push(machine, "b")
    assert machine.take() is None
    assert machine.until_next() == pytest.approx(0.4)
    clock.now += 0.4
    assert names(machine.take()) == ["a", "b"]
    assert machine.until_next() is None


def test_without_a_wait_what_is_there_runs() -> None:
    machine, _ = make(wait=0.0)
    push(machine, "a", "b")
    assert names(machine.take()) == ["a", "b"]


def test_one_batch_runs_at_a_time() -> None:
    machine, _ = make(size=1)
    push(machine, "a", "b")
    first = machine.take()
    assert first is not None
    assert machine.take() is None
    assert machine.until_next() is None
    machine.finish(first)
    assert names(machine.take()) == ["b"]


def test_what_waits_for_its_batch_can_be_recalled_and_cancelled() -> None:
    machine, _ = make()
    push(machine, "a", "b")
    assert machine.handle({"t": "CancelInputs", "input_ids": ["a"]}, NOTHING) == [DropInputs(["a"])]
    assert machine.handle({"t": "Recall", "count": 5}, NOTHING) == [ReturnInputs(["b"])]
    assert machine.until_next() is None


def test_a_running_batch_is_interrupted_when_all_of_its_inputs_are_cancelled() -> None:
    machine, _ = make(size=2)
    push(machine, "a", "b")
    batch = machine.take()
    assert isinstance(batch, Batch)
    assert machine.handle({"t": "CancelInputs", "input_ids": ["a"]}, NOTHING) == []
    assert machine.handle({"t": "CancelInputs", "input_ids": ["b"]}, NOTHING) == [Interrupt("a", CANCELLED)]


def test_a_batch_is_timed_out_and_stopped_as_a_whole() -> None:
    machine, _ = make(size=2)
    push(machine, "a", "b", "c")
    batch = machine.take()
    assert batch is not None
    assert machine.stop(1.0) == [ReturnInputs(["c"]), Interrupt("a", STOPPED)]
    assert machine.finish(batch) == [Exit()]
    machine, _ = make(size=1)
    push(machine, "a")
    batch = machine.take()
    assert batch is not None
    assert machine.time_out(batch) == [Interrupt("a", TIMED_OUT)]


# --- arguments and results


def add(xs: list[int], ys: Any = 10) -> Any:
    return [x + y for x, y in zip(xs, ys)]


def batch_of(function: Any, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[BatchTask, Batch]:
    machine, _ = make(size=len(calls), wait=0.0)
    payloads = [serialize(call) for call in calls]
    records = [{"input_id": f"in-{n}", "call_id": "fc-1", "size": len(one)} for n, one in enumerate(payloads)]
    machine.handle({"t": "RunInputs", "inputs": records}, memoryview(b"".join(payloads)))
    batch = machine.take()
    assert isinstance(batch, Batch)
    batch.started = 1.0
    return BatchTask(function, "add", False, 60.0), batch


def read(outputs: list[tuple[dict[str, Any], bytes]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record, payload in outputs:
        assert record["input_id"] not in found
        if record["status"] == "success":
            found[record["input_id"]] = deserialize(payload)
        elif record["status"] == "failure":
            found[record["input_id"]] = deserialize_failure(payload)
        else:
            found[record["input_id"]] = record["status"]
    return found


def test_every_argument_is_a_list_however_it_was_given() -> None:
    task, batch = batch_of(add, ((1,), {}), ((2, 20), {}), ((), {"ys": 30, "xs": 3}))
    assert task.gather(batch) == (([1, 2, 3], [10, 20, 30]), {})


def test_keyword_only_arguments_are_lists_too() -> None:
    def f(xs: Any, *more: Any, scale: Any = 1, **rest: Any) -> Any: ...

    task, batch = batch_of(f, ((1, 2), {"scale": 5, "k": "a"}), ((3, 4), {"k": "b"}))
    assert task.gather(batch) == (([1, 3], [2, 4]), {"scale": [5, 1], "k": ["a", "b"]})


def test_an_input_whose_arguments_do_not_fit_fails_alone() -> None:
    task, batch = batch_of(add, ((1,), {}), ((), {}), ((2,), {"zs": 1}), ((3,), {}))
    args, kwargs = task.gather(batch)
    results = read(task.spread(batch, add(*args, **kwargs)))
    assert (results["in-0"], results["in-3"]) == (11, 13)
    assert isinstance(results["in-1"], TypeError)
    assert isinstance(results["in-2"], TypeError)


def test_a_batch_in_which_nothing_fits_does_not_run() -> None:
    task, batch = batch_of(add, ((), {}))
    with pytest.raises(NothingToRun) as caught:
        task.gather(batch)
    assert isinstance(read(task.fail(batch, caught.value))["in-0"], TypeError)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([1], "one of 1"),
        ([1, 2, 3], "one of 3"),
        ((1, 2), "a tuple"),
        (None, "None"),
        (7, "an int"),
        ("ab", "a str"),
    ],
)
def test_a_result_that_is_no_list_of_that_length_fails_every_input_and_says_both(result: Any, said: str) -> None:
    task, batch = batch_of(add, ((1,), {}), ((2,), {}))
    task.gather(batch)
    results = read(task.spread(batch, result))
    assert set(results) == {"in-0", "in-1"}
    for error in results.values():
        assert type(error).__name__ == "InvalidError"
        assert "2 inputs" in str(error)
        assert f"returned {said}." in str(error)


def test_a_result_that_cannot_be_pickled_fails_its_own_input_only() -> None:
    import threading

    task, batch = batch_of(add, ((1,), {}), ((2,), {}))
    task.gather(batch)
    results = read(task.spread(batch, [threading.Lock(), 5]))
    assert results["in-1"] == 5
    assert type(results["in-0"]).__name__ == "SerializationError"


def test_a_cancelled_input_of_a_batch_loses_only_its_own_result() -> None:
    task, batch = batch_of(add, ((1,), {}), ((2,), {}))
    task.gather(batch)
    batch.members[0].interrupted = CANCELLED
    assert read(task.spread(batch, [1, 2])) == {"in-0": "terminated", "in-1": 2}


@pytest.mark.parametrize(("reason", "status"), [(TIMED_OUT, "timeout"), (STOPPED, "internal_failure")])
def test_every_input_shares_what_became_of_its_batch(reason: str, status: str) -> None:
    task, batch = batch_of(add, ((1,), {}), ((2,), {}))
    batch.interrupted = reason
    assert read(task.fail(batch, KeyboardInterrupt())) == {"in-0": status, "in-1": status}


def test_every_input_gets_the_exception_of_its_batch() -> None:
    task, batch = batch_of(add, ((1,), {}), ((2,), {}))
    task.gather(batch)
    results = read(task.fail(batch, ValueError("no")))
    assert [repr(one) for one in results.values()] == ["ValueError('no')"] * 2
