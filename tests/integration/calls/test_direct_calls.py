"""Calls over direct lines: quick ones never meet the server, and in every other respect they are calls like others."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal.exception import ExecutionError, FunctionTimeoutError, RemoteError


def act(what: str = "", value: Any = None) -> Any:
    """Returns `value`, unless it is to do something else."""
    import os
    import signal
    import time
    from pathlib import Path

    import modal

    if what == "pid":
        return os.getpid()
    if what == "ids":
        return modal.current_input_id(), modal.current_function_call_id()
    if what == "fail":
        raise KeyError(value)
    if what == "fail once":
        if Path(value).exists():
            return "at last"
        Path(value).touch()
        raise KeyError(value)
    if what == "die":
        Path(f"{value}.{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "sleep":
        time.sleep(value)
    if what == "hang":  # C code that keeps the interpreter to itself
        sum(range(10**13))
    if what == "note and sleep":
        Path(value).touch()
        try:
            for _ in range(6000):
                time.sleep(0.01)
        except BaseException as error:
            Path(value + ".interrupted").write_text(type(error).__name__)
            raise
    if what == "fork":
        child = os.fork()
        if not child:
            modal.current_input_id()
            return "in the child"
        return os.waitpid(child, 0)[1]
    if what == "graph":
        call_id = modal.current_function_call_id()
        assert call_id is not None
        return modal.FunctionCall.from_id(call_id).get_call_graph()[0].function_call_id == call_id
    if what == "count":
        with open(value, "a") as file:
            file.write("x")
    return value


def answered(function: Any) -> int:
    """How many calls the function's line has answered; 0 without a line."""
    line = function._direct._line if function._direct is not None else None
    return 0 if line is None else line.answered


def get_line(function: Any) -> None:
    """Call it until it is called directly."""

    def is_direct() -> bool:
        before = answered(function)
        assert function.remote("", 1) == 1
        return answered(function) > before

    until(is_direct, "a direct line")


@pytest.fixture
def running(app: modal.App) -> Iterator[Any]:
    """A function in one container, called directly."""
    function = app.function(serialized=True, concurrency_limit=1, timeout=60)(act)
    with app.run():
        get_line(function)
        yield function


def test_many_quick_calls(running: Any) -> None:
    for number in range(500):
        assert running.remote("", number) == number
    input_id, call_id = running.remote("ids")
    call = modal.FunctionCall.from_id(call_id)
    assert call.get(timeout=10) == (input_id, call_id)
    assert [node.function_call_id for node in call.get_call_graph()] == [call_id]
    assert input_id == f"in-{call_id[3:]}-0"


def test_a_quick_call_can_be_found_by_its_id_afterwards(running: Any) -> None:
    input_id = last_input_of(running)
    call = modal.FunctionCall.from_id(f"fc-{input_id[3:-2]}")

    def is_known() -> bool:
        with contextlib.suppress(modal.exception.NotFoundError):
            return call.get(timeout=10) == "mark"
        return False

    until(is_known, "the container to tell of the call")
    [node] = call.get_call_graph()
    assert node.status is modal.call_graph.InputStatus.SUCCESS
    assert node.task_id.startswith("ta-")


def last_input_of(function: Any) -> str:
    """The id of an input that was answered over the line."""
    while True:
        before = answered(function)
        assert function.remote("", "mark") == "mark"
        if answered(function) > before:
            return str(function._direct._line._input_id)


def test_statistics_count_nothing_twice(running: Any) -> None:
    for number in range(50):
        running.remote("", number)
    until(lambda: running.get_current_stats().backlog == 0, "an empty backlog")
    assert running.get_current_stats().num_total_runners == 1


def test_the_function_sees_its_ids_and_the_server_knows_them_at_once(running: Any) -> None:
    assert running.remote("graph") is True


def test_large_payloads_take_the_usual_way(running: Any) -> None:
    data = bytes(3_000_000)
    assert running.remote("", data) == data
    get_line(running)
    middle = bytes(100_000)  # too large for the line, small enough for a frame
    assert running.remote("", middle) == middle


def test_a_large_result_of_a_small_input_comes_through_the_server(app: modal.App) -> None:
    @app.function(serialized=True)
    def grow(what: str, size: int) -> Any:
        return size if size < 2 else bytes(size)

    with app.run():
        for size in (80_000, 3_000_000):
            get_line(grow)
            assert grow.remote("", size) == bytes(size)


def test_an_exception_arrives_as_itself(running: Any) -> None:
    for _ in range(3):
        get_line(running)
        with pytest.raises(KeyError, match="what"):
            running.remote("fail", "what")


def test_retries_count_from_the_direct_attempt(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, retries=modal.Retries(max_retries=1, initial_delay=0.0))(act)
    with app.run():
        get_line(function)
        assert function.remote("fail once", str(tmp_path / "failed")) == "at last"


def test_a_call_that_takes_longer_is_a_call_like_others(running: Any) -> None:
    get_line(running)
    assert running.remote("sleep", 0.3) == 0.3
    until(lambda: running.get_current_stats().backlog == 0, "an empty backlog")
    get_line(running)


def test_timeout_of_python_code(app: modal.App) -> None:
    function = app.function(serialized=True, timeout=1)(act)
    with app.run():
        get_line(function)
        with pytest.raises(FunctionTimeoutError):
            function.remote("sleep", 30)
        assert function.remote("", 5) == 5


def test_timeout_of_code_that_lets_nobody_else_run(app: modal.App) -> None:
    """The container cannot say that the call takes long: its client does."""
    function = app.function(serialized=True, timeout=1)(act)
    with app.run():
        get_line(function)
        with pytest.raises(FunctionTimeoutError):
            function.remote("hang")
        assert function.remote("", 5) == 5


@pytest.mark.parametrize("how", ["die", "exit"])
def test_a_container_that_dies_fails_the_call_once(app: modal.App, tmp_path: Path, how: str) -> None:
    function = app.function(serialized=True)(act)
    with app.run():
        get_line(function)
        with pytest.raises(ExecutionError):
            function.remote(how, str(tmp_path / "died"))
        assert len(list(tmp_path.glob("died.*"))) == (how == "die")
        assert function.remote("", 5) == 5


def test_a_container_that_dies_is_replaced_by_policy(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, retries=modal.Retries(max_retries=2, initial_delay=0.0))(act)
    with app.run():
        get_line(function)
        with pytest.raises(ExecutionError):
            function.remote("die", str(tmp_path / "died"))
        assert len(list(tmp_path.glob("died.*"))) == 3


def test_kill_from_outside_between_calls(running: Any) -> None:
    for _ in range(3):
        get_line(running)
        os.kill(running.remote("pid"), signal.SIGKILL)
        until(lambda: running.get_current_stats().num_total_runners == 0, "the container to be gone")
        assert running.remote("", 5) == 5


def test_a_container_that_is_told_to_end_gives_the_call_back(running: Any) -> None:
    """SIGTERM: the input runs again elsewhere, and nobody sees anything of it."""
    pid = running.remote("pid")
    get_line(running)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(running.remote("sleep", 0.5)))
    thread.start()
    os.kill(pid, signal.SIGTERM)
    thread.join(20)
    assert results == [0.5]
    assert running.remote("pid") != pid


def test_other_calls_get_their_turn(running: Any) -> None:
    """They come through the server; the one container serves both."""
    stop, counts = threading.Event(), [0]

    def hammer() -> None:
        while not stop.is_set():
            assert running.remote("", 7) == 7
            counts[0] += 1

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for number in range(30):
            assert running.spawn("", number).get(timeout=20) == number
            assert sum(running.map([""] * 20, range(20))) == 190
    finally:
        stop.set()
        thread.join()
    assert counts[0] > 30


def test_two_threads_call_at_once(running: Any) -> None:
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 200):
                assert running.remote("", number) == number
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_long_call_of_someone_else_does_not_hold_up_a_direct_one(app: modal.App, tmp_path: Path) -> None:
    """The container is busy: the input goes back to the server, and to another container."""
    function = app.function(serialized=True, concurrency_limit=2)(act)
    with app.run():
        get_line(function)
        begun = tmp_path / "begun"
        long = function.spawn("note and sleep", str(begun))
        until(begun.exists, "the long call to begin")
        assert function.remote("", 5) == 5
        long.cancel()


def test_cancelling_by_id(running: Any, tmp_path: Path) -> None:
    get_line(running)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            running.remote("note and sleep", str(tmp_path / "begun"))
        except BaseException as error:
            caught.append(error)

    prefix, count = running._direct._line._prefix, running._direct._line._count
    thread = threading.Thread(target=call)
    thread.start()
    until((tmp_path / "begun").exists, "the call to begin")
    cancel_once_known(f"{prefix}{count + 1:08d}")
    thread.join(20)
    assert isinstance(caught[0], RemoteError)
    until((tmp_path / "begun.interrupted").exists, "the input to be interrupted")
    assert running.remote("", 5) == 5


def cancel_once_known(call_id: str) -> None:
    def is_cancelled() -> bool:
        with contextlib.suppress(modal.exception.NotFoundError):
            modal.FunctionCall.from_id(call_id).cancel()
            return True
        return False

    until(is_cancelled, "the call to be handed over")


@pytest.mark.parametrize("after", [0.0, 0.002, 0.2])
def test_ctrl_c_cancels_the_input(running: Any, tmp_path: Path, after: float) -> None:
    get_line(running)
    begun = tmp_path / "begun"

    def interrupt() -> None:
        until(begun.exists, "the call to begin")
        time.sleep(after)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        running.remote("note and sleep", str(begun))
    thread.join()
    until(begun.with_name("begun.interrupted").exists, "the input to be interrupted")
    assert running.remote("", 5) == 5


def test_a_fork_of_the_function_does_not_answer(running: Any) -> None:
    get_line(running)
    assert running.remote("fork") == 0
    get_line(running)


def test_a_fork_of_the_client_calls_by_itself(running: Any) -> None:
    get_line(running)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if [running.remote("", number) for number in range(20)] == list(range(20)) else 2
        os._exit(status)
    for number in range(100):
        assert running.remote("", number) == number
    assert os.waitpid(child, 0)[1] == 0
    assert running.remote("", 5) == 5


def test_the_app_ends_during_a_call(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True)(act)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            function.remote("note and sleep", str(tmp_path / "begun"))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)

    def run_and_fail() -> None:
        with app.run():
            get_line(function)
            thread.start()
            until((tmp_path / "begun").exists, "the call to begin")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_and_fail()
    thread.join(20)
    assert isinstance(caught[0], ExecutionError)
    assert "stopped" in str(caught[0])


def test_an_idle_line_keeps_nobody_alive_and_calls_do(app: modal.App) -> None:
    function = app.function(serialized=True, container_idle_timeout=1)(act)
    with app.run():
        get_line(function)
        pid = function.remote("pid")
        until_time = time.monotonic() + 2.5
        while time.monotonic() < until_time:
            assert function.remote("", 1) == 1
            time.sleep(0.1)
        assert function.remote("pid") == pid
        until(lambda: function.get_current_stats().num_total_runners == 0, "the idle container to end")
        assert function.remote("pid") != pid


@pytest.mark.parametrize("options", [{"max_inputs": 1000}, {"allow_concurrent_inputs": 2}])
def test_functions_that_gain_nothing_by_a_line_have_none(app: modal.App, options: dict[str, Any]) -> None:
    function = app.function(serialized=True, **options)(act)
    with app.run():
        for number in range(30):
            assert function.remote("", number) == number
        assert answered(function) == 0


def test_async_functions_have_no_line(app: modal.App) -> None:
    @app.function(serialized=True)
    async def later(x: int) -> int:
        return x

    with app.run():
        for number in range(30):
            assert later.remote(number) == number
        assert answered(later) == 0


def test_each_input_runs_once(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "count"
    for _ in range(200):
        running.remote("count", str(path))
    assert len(path.read_text()) == 200


class Counter:
    start: int = modal.parameter(default=0)

    @modal.enter()
    def begin(self) -> None:
        self.calls = 0

    @modal.method()
    def add(self, value: int) -> int:
        return self.start + value

    @modal.method()
    def fail(self, value: int) -> int:
        raise KeyError(value)

    @modal.method()
    def ids(self) -> Any:
        return modal.current_function_call_id()

    @modal.method()
    def values(self, count: int) -> Any:
        yield from range(count)


def test_methods_of_classes(app: modal.App) -> None:
    counter_class: Any = app.cls(serialized=True)(Counter)
    with app.run():
        for start in (0, 100):
            counter = counter_class(start=start)
            add, fail, ids = counter.add, counter.fail, counter.ids

            def is_direct(add: Any = add, start: int = start) -> bool:
                before = answered(add)
                assert add.remote(1) == start + 1
                return answered(add) > before

            until(is_direct, "a direct line")
            assert [add.remote(number) for number in range(100)] == [start + number for number in range(100)]
            for number in range(10):
                with pytest.raises(KeyError):
                    fail.remote(number)
            assert list(counter.values.remote_gen(3)) == [0, 1, 2]
            for _ in range(5):
                call_id = ids.remote()
                assert modal.FunctionCall.from_id(call_id).get(timeout=10) == call_id
                assert modal.FunctionCall.from_id(call_id).get_call_graph()[0].function_name == "Counter.ids"
