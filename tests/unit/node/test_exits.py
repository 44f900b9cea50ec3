from __future__ import annotations

import re

import pytest

from intermodal.model.container import ExitCause
from intermodal.node.exits import Ending, judge, unwrap
from intermodal.runtimes.interface import ProcessExit

ZERO, ONE, KILLED = ProcessExit(0, None), ProcessExit(1, None), ProcessExit(None, 9)


@pytest.mark.parametrize(
    ("ending", "cause", "words"),
    [
        (Ending(ZERO, was_ready=True, is_stopping=True), ExitCause.FINISHED, "finished"),
        (Ending(ZERO, was_ready=True), ExitCause.EXITED, "status 0"),
        (Ending(ONE, was_ready=True), ExitCause.EXITED, "status 1"),
        (Ending(ONE, was_ready=True, is_stopping=True), ExitCause.EXITED, "status 1"),
        (Ending(KILLED, was_ready=True), ExitCause.SIGNALED, "SIGKILL"),
        (Ending(ProcessExit(None, 35), was_ready=True), ExitCause.SIGNALED, "signal 35"),
        (Ending(KILLED, was_ready=True, is_stopping=True, was_killed=True), ExitCause.STOPPED, "stopped"),
        (Ending(KILLED, was_ready=False, is_stopping=True, was_killed=True), ExitCause.STOPPED, "stopped"),
        (Ending(KILLED, was_ready=True, was_killed=True, fault="It lied."), ExitCause.STOPPED, "It lied."),
        (Ending(KILLED, was_ready=False, was_killed=True, fault="Late."), ExitCause.START_FAILED, "Late."),
        (Ending(ONE, was_ready=False, start_error="No module."), ExitCause.START_FAILED, "No module."),
        (Ending(ONE, was_ready=False, stderr_tail="boom\n"), ExitCause.START_FAILED, "status 1 .* output:\nboom"),
        (Ending(ProcessExit(None, 9, True), was_ready=True, memory_limit=64), ExitCause.OUT_OF_MEMORY, "64 MiB"),
        (Ending(ProcessExit(1, None, True), was_ready=False), ExitCause.OUT_OF_MEMORY, "machine"),
        # A child of user code ran out of memory, the container went on and finished.
        (Ending(ProcessExit(0, None, True), was_ready=True, is_stopping=True), ExitCause.FINISHED, "finished"),
    ],
)
def test_an_ending_is_judged(ending: Ending, cause: ExitCause, words: str) -> None:
    exit = judge(ending)
    assert exit.cause is cause
    assert re.search(words, exit.detail, re.DOTALL)
    assert (exit.code, exit.signal) == (ending.process.code, ending.process.signal)


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (ProcessExit(137, None), ProcessExit(None, 9)),
        (ProcessExit(139, None, True), ProcessExit(None, 11, True)),
        (ProcessExit(128, None), ProcessExit(128, None)),
        (ProcessExit(255, None), ProcessExit(255, None)),
        (ProcessExit(None, 9), ProcessExit(None, 9)),
    ],
)
def test_the_signal_behind_an_exit_status_is_found(process: ProcessExit, expected: ProcessExit) -> None:
    assert unwrap(process) == expected
