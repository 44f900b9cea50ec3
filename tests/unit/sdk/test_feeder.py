"""How far the inputs of a map are consumed ahead of its outputs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from modal._calls.feeder import AHEAD, IN_FLIGHT, OUTPUT_BYTES, Feeder

OUTPUT = 2 * 1024 * 1024


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def endless() -> Feeder:
    feeder = Feeder(iter(itertools.count()), lambda value: b"x")
    feeder.start(lambda: None, in_task=False)
    until(lambda: feeder.count == IN_FLIGHT)
    return feeder


def test_unfinished_inputs_are_bounded() -> None:
    feeder = endless()
    assert not feeder.has_room()
    feeder.finished(10, 10, 0)
    until(lambda: feeder.count == IN_FLIGHT + 10)
    feeder.stop()


def test_outputs_that_the_caller_has_not_asked_for_are_bounded_by_number() -> None:
    feeder = endless()
    while feeder.count < AHEAD:
        before = feeder.count
        feeder.finished(IN_FLIGHT, IN_FLIGHT, 0)
        until(lambda before=before: feeder.count > before and not feeder.has_room())  # type: ignore[misc]
    feeder.finished(IN_FLIGHT, IN_FLIGHT, 0)
    assert feeder.count == AHEAD
    assert not feeder.has_room()
    feeder.passed_on += 5
    feeder.finished(0, 0, 0)
    until(lambda: feeder.count == AHEAD + 5)
    feeder.stop()


def test_large_outputs_are_bounded_by_what_they_take() -> None:
    feeder = endless()
    feeder.finished(100, 100, 100 * OUTPUT)
    assert not feeder.has_room(), "the others are expected to be as large"
    feeder.finished(IN_FLIGHT - 100, IN_FLIGHT - 100, (IN_FLIGHT - 100) * OUTPUT)
    assert not feeder.has_room(), "the outputs are all here and nobody took them"
    feeder.passed_on, feeder.passed_bytes = IN_FLIGHT, IN_FLIGHT * OUTPUT
    feeder.finished(0, 0, 0)
    until(lambda: feeder.count == IN_FLIGHT + OUTPUT_BYTES // OUTPUT)
    assert not feeder.has_room()
    feeder.stop()
