from __future__ import annotations

from dataclasses import replace

from live_parts import container_of, revision

from intermodal.control.functions import Function
from intermodal.model.container import ContainerExit, ExitCause
from modal._wire.messages.common import ErrorInfo

WHY = ErrorInfo("ImportError", "no such module")


def starting() -> Function:
    return Function("fu-1", "ap-1", revision(), starting=1)


def test_its_counts_are_those_of_the_function() -> None:
    function = starting()
    container = container_of(function)
    container.came_up()
    container.give(["in-1-0", "in-1-1"], 1.0)
    container.took(["in-2-0"], 2.0)
    assert (function.starting, function.running, function.running_inputs) == (0, 1, 3)
    assert list(container.running) == ["in-2-0", "in-1-0", "in-1-1"]  # what it took comes first
    assert container.gave_back(["in-1-1", "in-9-0"]) == ["in-1-1"]
    assert function.running_inputs == 2
    container.ended(ContainerExit(ExitCause.EXITED))
    assert (function.starting, function.running, function.running_inputs) == (0, 0, 0)
    assert list(container.running) == ["in-2-0", "in-1-0"]


def test_why_it_could_not_start_is_what_it_said_first() -> None:
    function = starting()
    container = container_of(function)
    container.could_not_start(WHY, b"traceback")
    container.ended(ContainerExit(ExitCause.START_FAILED, detail="It exited with status 1."))
    assert function.start_failure == (WHY, b"traceback")
    assert function.starting == 0


def test_one_that_ends_without_a_word_could_not_start_for_the_reason_of_its_end() -> None:
    function = starting()
    container_of(function).ended(ContainerExit(ExitCause.EXITED, detail="It exited with status 1."))
    assert function.start_failure == (ErrorInfo("ExecutionError", "It exited with status 1."), b"")


def test_one_that_was_stopped_while_it_started_does_not_hide_why_others_could_not() -> None:
    function = starting()
    function.start_failure = (WHY, b"traceback")
    container = container_of(function, is_stopping=True)
    container.ended(ContainerExit(ExitCause.STOPPED, detail="The container was stopped."))
    assert function.start_failure == (WHY, b"traceback")


def test_what_a_replaced_revision_had_is_no_news() -> None:
    function = starting()
    container = container_of(function)
    function.revision = replace(function.revision, revision_id="re-2")
    function.start_failure = (WHY, b"traceback")
    container.came_up()
    assert function.start_failure == (WHY, b"traceback")
