"""Enter and exit hooks: when they run, and what happens when they fail."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal._serialization import serialize_failure
from modal.exception import ExecutionError, FunctionTimeoutError

GRACE = 3.0


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"stop_grace": GRACE}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class ProgramFailed(Exception):
    """Raised by a program while its app runs."""


@contextlib.contextmanager
def failing_program(app: modal.App) -> Iterator[None]:
    """Run the app for the block, and then fail."""
    try:
        with app.run():
            yield
            raise ProgramFailed
    except ProgramFailed:
        return


def recorder(app: modal.App, said: Path, **options: Any) -> Any:
    """A class whose hooks leave lines in a file."""
    place = str(said)

    def say(what: str) -> None:
        with open(place, "a") as file:
            file.write(what + "\n")

    @app.cls(serialized=True, **options)
    class Recorder:
        word: str = modal.parameter(default="x")

        @modal.enter()
        def start(self) -> None:
            say(f"enter {self.word}")

        @modal.method()
        def work(self) -> int:
            return os.getpid()

        @modal.method()
        def hang(self, file: str) -> None:
            import time

            Path(file).write_text("begun")
            while True:
                time.sleep(0.01)

        @modal.exit()
        def stop(self) -> None:
            import threading

            say(f"exit {self.word} {threading.current_thread() is threading.main_thread()}")

    return Recorder


def async_recorder(app: modal.App, said: Path, **options: Any) -> Any:
    """The same with async methods and hooks."""
    place = str(said)

    def say(what: str) -> None:
        with open(place, "a") as file:
            file.write(what + "\n")

    @app.cls(serialized=True, **options)
    class Recorder:
        word: str = modal.parameter(default="x")

        @modal.enter()
        async def start(self) -> None:
            say(f"enter {self.word}")

        @modal.method()
        async def work(self) -> int:
            return os.getpid()

        @modal.method()
        async def hang(self, file: str) -> None:
            import asyncio

            Path(file).write_text("begun")
            await asyncio.Event().wait()

        @modal.exit()
        async def stop(self) -> None:
            import threading

            say(f"exit {self.word} {threading.current_thread() is threading.main_thread()}")

    return Recorder


KINDS = pytest.mark.parametrize(
    ("make", "options"),
    [(recorder, {}), (recorder, {"allow_concurrent_inputs": 4}), (async_recorder, {})],
    ids=["main-thread", "threads", "async"],
)


@KINDS
def test_exit_hooks_run_when_the_pool_scales_down(app: modal.App, tmp_path: Path, make: Any, options: Any) -> None:
    said = tmp_path / "said"
    cls = make(app, said, container_idle_timeout=1, **options)
    with app.run():
        cls(word="a").work.remote()
        until(lambda: "exit a True" in lines(said), "the container to scale down")
        assert lines(said) == ["enter a", "exit a True"]
        assert cls(word="a").work.remote() > 0
        assert lines(said)[2] == "enter a"


@KINDS
def test_exit_hooks_run_when_the_app_stops_with_an_error(
    app: modal.App, tmp_path: Path, make: Any, options: Any
) -> None:
    said, begun = tmp_path / "said", tmp_path / "begun"
    cls = make(app, said, **options)
    with failing_program(app):
        cls().hang.spawn(str(begun))
        until(begun.exists, "the input to begin")
    assert lines(said) == ["enter x", "exit x True"]


@KINDS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exit_hooks_run_on_preemption(
    app: modal.App, tmp_path: Path, make: Any, options: Any, number: signal.Signals
) -> None:
    said = tmp_path / "said"
    cls = make(app, said, **options)
    with app.run():
        pid = cls().work.remote()
        os.kill(pid, number)
        until(lambda: lines(said) == ["enter x", "exit x True"], "the exit hook")
        assert cls().work.remote() != pid


def test_a_preempted_input_runs_again_after_the_exit_hook(app: modal.App, tmp_path: Path) -> None:
    said, place = tmp_path / "said", str(tmp_path / "pids")
    told = str(said)

    @app.cls(serialized=True)
    class Slow:
        @modal.method()
        def work(self) -> str:
            import time

            with open(place, "a") as file:
                file.write(f"{os.getpid()}\n")
            if len(Path(place).read_text().split()) > 1:
                return "done"
            while True:
                time.sleep(0.01)

        @modal.exit()
        def stop(self) -> None:
            Path(told).write_text("exit")

    with app.run():
        call = Slow().work.spawn()
        until(lambda: lines(Path(place)), "the input to begin")
        os.kill(int(lines(Path(place))[0]), signal.SIGTERM)
        assert call.get(timeout=30) == "done"
        assert said.read_text() == "exit"


def test_an_exit_hook_that_fails_does_not_keep_the_others_from_running(
    app: modal.App, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = str(tmp_path / "said")

    @app.cls(serialized=True)
    class Model:
        @modal.method()
        def work(self) -> None: ...

        @modal.exit()
        def first(self) -> None:
            raise ValueError("cannot save")

        @modal.exit()
        def second(self) -> None:
            raise SystemExit(3)

        @modal.exit()
        def third(self, cls: Any, exc: Any, traceback: Any) -> None:  # as exit hooks once were
            Path(said).write_text(repr((cls, exc, traceback)))

    with modal.enable_output(), app.run():
        Model().work.remote()
    assert Path(said).read_text() == "(None, None, None)"
    printed = "".join(capfd.readouterr())
    assert "The exit hook Model.first raised an exception:" in printed
    assert "ValueError: cannot save" in printed
    assert "_container" not in printed


def test_an_exit_hook_that_hangs_is_ended_with_its_name(
    app: modal.App, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @app.cls(serialized=True)
    class Model:
        @modal.method()
        def work(self) -> None: ...

        @modal.exit()
        def stop(self) -> None:
            import time

            while True:
                time.sleep(1)

    with modal.enable_output(), app.run():
        Model().work.remote()
    assert "the exit hook Model.stop did not end in the time" in "".join(capfd.readouterr())


def failing(app: modal.App, how: Any, **options: Any) -> Any:
    @app.cls(serialized=True, **options)
    class Model:
        @modal.enter()
        def setup(self) -> None:
            how()

        @modal.method()
        def work(self) -> None: ...

    return Model


def test_an_enter_hook_that_raises_is_raised_to_the_caller_with_its_name(app: modal.App) -> None:
    def how() -> None:
        raise LookupError("no weights")

    model = failing(app, how, retries=3)
    with app.run(), pytest.raises(LookupError, match="no weights") as caught:
        model().work.remote()
    assert "This was raised by the enter hook Model.setup" in "".join(caught.value.__notes__)
    serialize_failure(caught.value)  # it can travel on


def test_an_async_enter_hook_that_raises_does_so_too(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Model:
        @modal.enter()
        async def connect(self) -> None:
            raise OSError("no database")

        @modal.method()
        async def work(self) -> None: ...

    with app.run(), pytest.raises(OSError, match="no database") as caught:
        Model().work.remote()
    assert "Model.connect" in "".join(caught.value.__notes__)


def test_an_enter_hook_that_exits_is_named(app: modal.App) -> None:
    def how() -> None:
        raise SystemExit(4)

    model = failing(app, how)
    with app.run(), pytest.raises(ExecutionError, match=r"The enter hook Model\.setup called sys\.exit\(4\)"):
        model().work.remote()


def test_an_enter_hook_that_ends_the_process_fails_the_call(app: modal.App) -> None:
    model = failing(app, lambda: os._exit(5))
    with app.run(), pytest.raises(ExecutionError, match="exited with status 5"):
        model().work.remote()


def test_an_enter_hook_that_hangs_is_ended_by_the_timeout_with_its_name(app: modal.App) -> None:
    def how() -> None:
        import time

        while True:
            try:
                time.sleep(10)
            except BaseException:  # it cannot be interrupted either
                continue

    model = failing(app, how, timeout=1)
    with (
        app.run(),
        pytest.raises(FunctionTimeoutError, match=r"The enter hook Model\.setup ran longer than the timeout"),
    ):
        model().work.remote()


def test_a_constructor_that_raises_is_raised_to_the_caller(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Model:
        def __init__(self) -> None:
            raise ArithmeticError("not today")

        @modal.method()
        def work(self) -> None: ...

    with app.run(), pytest.raises(ArithmeticError, match="not today") as caught:
        Model().work.remote()
    assert "the constructor of Model" in "".join(caught.value.__notes__)


def test_containers_without_exit_hooks_are_not_waited_for(app: modal.App, tmp_path: Path) -> None:
    @app.cls(serialized=True)
    class Stubborn:
        @modal.method()
        def work(self, file: str) -> None:
            import time

            Path(file).write_text("begun")
            while True:
                try:
                    time.sleep(10)
                except BaseException:
                    Path(file).write_text("asked")

    begun = tmp_path / "begun"
    with failing_program(app):
        Stubborn().work.spawn(str(begun))
        until(begun.exists, "the input to begin")
    assert begun.read_text() == "begun"  # it was killed, not asked


def test_exit_hooks_run_when_a_container_has_had_its_inputs(app: modal.App, tmp_path: Path) -> None:
    said = tmp_path / "said"
    cls = recorder(app, said, max_inputs=2)
    with app.run():
        assert len({cls().work.remote() for _ in range(4)}) == 2
        until(lambda: lines(said).count("exit x True") == 2, "both containers to end")


def test_an_enter_hook_that_fails_where_nobody_waits_is_in_the_log(
    app: modal.App, capfd: pytest.CaptureFixture[str]
) -> None:
    def how() -> None:
        raise LookupError("no weights")

    failing(app, how, keep_warm=1)
    printed: list[str] = []

    def said() -> bool:
        printed.extend(capfd.readouterr())
        return "A container of Model could not start: The enter hook Model.setup raised LookupError" in "".join(printed)

    with modal.enable_output(), app.run():
        until(said, "the reason in the log")
