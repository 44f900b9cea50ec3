from __future__ import annotations

import io

from modal._output import SilentOutput, output, using
from modal._output.files_summary import summarize_files
from modal._output.line_assembler import HOLD, LineAssembler
from modal._output.plain_output import PlainOutput, write_text
from modal._wire.messages.app import AppEvent, AppStopReason, FunctionStatus, LogEntry, LogStream


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(**settings: object) -> tuple[PlainOutput, io.StringIO, io.StringIO, Clock]:
    out, err, clock = io.StringIO(), io.StringIO(), Clock()
    return PlainOutput(out, err, clock=clock, **settings), out, err, clock  # type: ignore[arg-type]


def log(text: str, stream: LogStream = LogStream.STDOUT, container: str = "co-1") -> AppEvent:
    return AppEvent(logs=[LogEntry(seq=1, at=0.0, stream=stream, text=text, container_id=container)])


def test_each_stream_of_a_container_goes_to_the_same_stream_here():
    manager, out, err, _ = make()
    manager.app_event(log("result\n"))
    manager.app_event(log("warning\n", LogStream.STDERR))
    manager.app_event(log("container was killed\n", LogStream.SYSTEM))
    assert out.getvalue() == "result\n"
    assert err.getvalue() == "warning\ncontainer was killed\n"


def test_quiet_shows_only_what_user_code_prints():
    manager, out, err, _ = make(show_progress=False)
    manager.message("a local server was started")
    manager.files_sent(["/x/app.py"])
    manager.app_started("ap-1", "hello")
    step = manager.step("pip install")
    step.log("Collecting\n")
    step.done()
    manager.app_event(log("result\n"))
    manager.app_event(log("oops\n", LogStream.STDERR))
    manager.app_event(log("starting\n", LogStream.SYSTEM))
    manager.app_event(AppEvent(status=FunctionStatus("fu-1", "f", starting=1)))
    manager.map_progress("f", 10, 10)
    manager.app_stopped(AppStopReason.FINISHED)
    manager.close()
    assert out.getvalue() == "result\n"
    assert err.getvalue() == "oops\n"


def test_plain_output_has_no_control_codes():
    manager, out, err, clock = make()
    manager.app_started("ap-1", "hello")
    step = manager.step("pip install")
    step.log("Collecting")
    clock.now += 1.5
    step.done()
    manager.step("apt install").fail("no such package")
    manager.app_event(AppEvent(status=FunctionStatus("fu-1", "f", starting=1)))
    manager.app_stopped(AppStopReason.INTERRUPTED)
    assert "\x1b" not in err.getvalue()
    assert "\r" not in err.getvalue()
    assert "Collecting\nDone: pip install (1.5 s)\n" in err.getvalue()
    assert "Failed: apt install: no such package\n" in err.getvalue()
    assert out.getvalue() == ""


def test_lines_of_two_containers_do_not_mix():
    manager, out, _, _ = make()
    manager.app_event(log("first half, ", container="co-1"))
    manager.app_event(log("other\n", container="co-2"))
    manager.app_event(log("second half\n", container="co-1"))
    manager.close()
    assert out.getvalue() == "other\nfirst half, second half\n"


def test_an_unfinished_line_is_shown_at_the_end():
    manager, out, _, _ = make()
    manager.app_event(log("no line end"))
    manager.close()
    assert out.getvalue() == "no line end"


def test_an_unfinished_line_is_shown_after_a_while():
    lines = LineAssembler()
    assert lines.feed("a", "prompt: ", 1.0) == ""
    assert lines.due(1.0 + HOLD / 2) == ""
    assert lines.due(1.0 + HOLD) == "prompt: "
    assert lines.feed("b", "line\n", 2.0) == "\nline\n", "another container does not write into the open line"
    assert not lines.holding


def test_counts_of_a_map_are_said_at_intervals_and_at_the_end():
    manager, _, err, clock = make()
    for done in range(100):
        manager.map_progress("square", done, 100)
        clock.now += 0.1
    manager.map_progress("square", 100, 100)
    manager.map_progress("square", 100, 100)
    lines = err.getvalue().splitlines()
    assert lines[-1] == "square: 100 of 100 inputs done"
    assert 3 <= len(lines) <= 7


def test_a_pending_reason_is_said_once():
    manager, _, err, _ = make()
    for queued in (1, 2, 3):
        manager.app_event(AppEvent(status=FunctionStatus("fu-1", "f", queued_inputs=queued, pending_reason="no gpu")))
    assert err.getvalue() == "f: waiting: no gpu\n"


def test_characters_the_stream_lacks_are_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_text(stream, "naïve\n")
    assert raw.getvalue() == b"na\\xefve\n"


def test_output_after_the_reader_is_gone_is_dropped():
    stream = io.StringIO()
    stream.close()
    write_text(stream, "text")


def test_files_are_summarized_in_one_line_or_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = [str(tmp_path / "app.py"), str(tmp_path / "pkg" / "a.py")]
    assert summarize_files(few) == "Sending 2 local files: app.py, pkg/a.py"
    many = [str(tmp_path / "pkg" / f"m{i}.py") for i in range(20)]
    assert summarize_files(many) == "Sending 20 local files: 20 from pkg"
    manager, _, err, _ = make(show_files=True)
    manager.files_sent(many)
    assert err.getvalue().count("\n") == 21


def test_output_is_silent_unless_enabled_and_the_outermost_switch_wins():
    assert isinstance(output(), SilentOutput)
    outer, inner = make()[0], make()[0]
    with using(outer):
        assert output() is outer
        with using(inner):
            assert output() is outer
        assert output() is outer
    assert isinstance(output(), SilentOutput)
