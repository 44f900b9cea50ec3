"""Exceptions that signal handlers raise: they come out of a call as they are, and nothing that it took is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn, Optional

import pytest
from real_server import RealServer, until

import modal
from modal._objects import taking
from modal._wire import quick
from modal._wire.messages.queue import QueueItems
from modal.exception import DeserializationError


@pytest.fixture
def shared(shared: modal.Queue) -> modal.Queue:
    """It has a quick connection already."""
    shared.len()
    return shared


class Late(Exception):
    """What no library knows of."""


@contextmanager
def alarm(
    error: BaseException, before: Callable[[], None] = lambda: None, timer: tuple[float, float] = (0.0, 0.0)
) -> Iterator[None]:
    """SIGALRM calls `before` and raises `error` while the block runs; `timer` is of `signal.setitimer`."""

    def late(number: int, frame: Optional[FrameType]) -> NoReturn:
        before()
        raise error

    kept = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, *timer)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


@contextmanager
def alarm_while_halted(server: RealServer, error: BaseException) -> Iterator[None]:
    """The server does nothing until SIGALRM, 0.1 s from now, which raises `error`."""
    halt = server.halted()
    halt.__enter__()
    with alarm(error, lambda: halt.__exit__(None, None, None), (0.1, 0.0)):
        yield


ERRORS = [TimeoutError("too slow"), OSError(5, "of the user's"), Late("too slow"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_handler_raises_comes_out_of_a_call(
    real_server: RealServer, error: BaseException, shared: modal.Queue
) -> None:
    with modal.Dict.ephemeral({"a": 1}) as entries:
        assert entries["a"] == 1
        for call in (lambda: entries["a"], lambda: entries.put("b", 2), entries.len, shared.len, lambda: shared.put(1)):
            with pytest.raises(type(error)) as caught, alarm_while_halted(real_server, error):
                call()
            assert caught.value is error
            # What comes next gets its own answer.
            assert entries["a"] == 1
            assert entries.contains("c") is False


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_was_taken_from_a_queue_goes_back(
    real_server: RealServer, error: BaseException, shared: modal.Queue
) -> None:
    shared.put_many([1, 2, 3])
    for call in (shared.get, lambda: shared.get_many(2), lambda: shared.get(timeout=10)):
        with pytest.raises(type(error)) as caught, alarm_while_halted(real_server, error):
            call()
        assert caught.value is error
        assert list(shared.iterate()) == [1, 2, 3]
    assert shared.get_many(3) == [1, 2, 3]
    with pytest.raises(type(error)), alarm(error, timer=(0.1, 0.0)):
        shared.get()
    shared.put(4)
    assert shared.get() == 4


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_was_popped_from_a_dict_goes_back(real_server: RealServer, error: BaseException) -> None:
    with modal.Dict.ephemeral({"a": 1}) as entries:
        entries.len()
        with pytest.raises(type(error)) as caught, alarm_while_halted(real_server, error):
            entries.pop("a")
        assert caught.value is error
        assert entries.pop("a") == 1


_interrupts = False


class Interrupting:
    """While it is unpickled, or pickled, SIGALRM comes if it is to."""

    def __reduce__(self) -> tuple[Any, ...]:
        interrupt()
        return interrupt, ()


def interrupt() -> str:
    if _interrupts:
        signal.raise_signal(signal.SIGALRM)
    return "whole"


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda interrupts: monkeypatch.setattr(f"{__name__}._interrupts", interrupts)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_interruption_while_something_is_unpickled(
    error: BaseException, shared: modal.Queue, interrupting: Callable[[bool], None]
) -> None:
    shared.put_many([0, Interrupting(), 2])
    with modal.Dict.ephemeral({"a": Interrupting()}) as entries, alarm(error):
        interrupting(True)
        calls: list[Callable[[], Any]] = [lambda: shared.get_many(3), lambda: list(shared.iterate())]
        calls += [lambda: entries.pop("a"), lambda: entries["a"], lambda: list(entries.items())]
        calls += [lambda: entries.put("b", Interrupting()), lambda: shared.put(Interrupting())]
        for call in calls:
            with pytest.raises(type(error)) as caught:
                call()
            assert caught.value is error
        interrupting(False)
        assert shared.get() == 0
        interrupting(True)
        with pytest.raises(type(error)):
            shared.get()
        interrupting(False)
        assert shared.get_many(2) == ["whole", 2]
        assert dict(entries.items()) == {"a": "whole"}


def test_what_cannot_be_unpickled_is_taken_though_a_handler_ran_before(
    shared: modal.Queue, interrupting: Callable[[bool], None]
) -> None:
    class Broken:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise ValueError('broken')",)

    shared.put_many([Broken(), 1])
    with pytest.raises(DeserializationError):
        shared.get()
    assert shared.get() == 1


@pytest.mark.parametrize("where", ["before it is noted", "after the answer", "after it is unpickled"])
def test_an_interruption_between_the_answer_and_the_caller(
    where: str, shared: modal.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.put_many([1, 2])
    place: tuple[Any, str] = {
        "before it is noted": (QueueItems, "cut"),
        "after the answer": (quick._Line, "unary"),
        "after it is unpickled": (taking, "deserialize"),
    }[where]
    original = getattr(*place)

    def interrupted(*args: Any) -> Any:
        value = original(*args)
        monkeypatch.setattr(*place, original)
        signal.raise_signal(signal.SIGALRM)
        return value

    monkeypatch.setattr(*place, interrupted)
    with pytest.raises(Late), alarm(Late()):
        shared.get()
    assert shared.get_many(3) == [1, 2]


def test_a_second_interruption_does_not_end_the_giving_back(
    real_server: RealServer, shared: modal.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.put_many([1, 2])
    halt, alarms = real_server.halted(), []

    def again() -> None:
        alarms.append(1)
        if len(alarms) == 2:
            halt.__exit__(None, None, None)

    halt.__enter__()
    with pytest.raises(Late), alarm(Late(), again, (0.1, 0.1)):
        shared.get()
    assert len(alarms) >= 2
    until(lambda: shared.len() == 2, "the item to be back")
    assert shared.get_many(2) == [1, 2]


RAIN = [TimeoutError, ValueError, KeyError, RuntimeError, TypeError, KeyboardInterrupt]
#: A coroutine that was made and that the interruption kept from beginning: Python itself complains.
UNBEGUN = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def rain(error: type[BaseException], take: Callable[[], None], is_done: Callable[[], bool]) -> None:
    """Let `take` be interrupted again and again until it is done.

    What it gets is to be noted by C code, so that no signal comes between.
    """
    chance, ended, give_up, armed = random.Random(1), 0, time.monotonic() + 60, False

    def late(number: int, frame: Optional[FrameType]) -> None:
        if armed:
            raise error

    kept = signal.signal(signal.SIGALRM, late)
    while not is_done() and time.monotonic() < give_up:
        signal.setitimer(signal.ITIMER_REAL, 0.002 + chance.random() * 0.004)
        try:
            armed = True
            take()
            armed = False
        except error:
            armed = False
            ended += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, kept)
    assert ended > 5


@UNBEGUN
@pytest.mark.parametrize("error", RAIN)
def test_no_item_is_lost_under_a_rain_of_signals(error: type[BaseException], shared: modal.Queue) -> None:
    items, found = list(range(1_000)), list[int]()
    shared.put_many(items)
    get = partial(shared.get, block=False)
    rain(error, lambda: found.extend(iter(get, None)), lambda: len(found) >= len(items))
    assert found == items


@UNBEGUN
@pytest.mark.parametrize("error", RAIN)
def test_no_entry_is_lost_under_a_rain_of_signals(real_server: RealServer, error: type[BaseException]) -> None:
    found: list[int] = []
    with modal.Dict.ephemeral({number: number for number in range(1_000)}) as entries:
        left: list[int] = []

        def is_done() -> bool:
            left[:] = entries.keys()
            return not left

        rain(error, lambda: found.extend(map(entries.pop, left)), is_done)
    assert sorted(found) == list(range(1_000))
