from __future__ import annotations

from intermodal.machines.build import BuildMachine, BuildState, CancelBuild, StartBuild, TellWaiters


def test_two_who_want_an_image_start_one_build() -> None:
    build = BuildMachine("im-1")
    assert build.wait("a") == [StartBuild("im-1")]
    build.begun()
    assert build.wait("b") == []
    assert build.ended() == [TellWaiters(("a", "b"), "")]
    assert build.wait("c") == [TellWaiters(("c",), "")]


def test_one_who_leaves_does_not_stop_the_build_of_another() -> None:
    build = BuildMachine("im-1")
    build.wait("a")
    build.wait("b")
    assert build.leave("a") == []
    assert build.leave("a") == []
    assert build.leave("b") == [CancelBuild("im-1")]
    assert build.state is BuildState.IDLE


def test_a_failed_build_is_tried_again_when_asked_for_again() -> None:
    build = BuildMachine("im-1")
    build.wait("a")
    build.begun()
    assert build.ended("pip failed") == [TellWaiters(("a",), "pip failed")]
    assert build.wait("a") == [StartBuild("im-1")]


def test_a_build_that_was_done_before_it_heard_of_its_end_counts() -> None:
    build = BuildMachine("im-1")
    build.wait("a")
    build.begun()
    build.leave("a")
    assert build.ended() == []
    assert build.wait("b") == [TellWaiters(("b",), "")]
