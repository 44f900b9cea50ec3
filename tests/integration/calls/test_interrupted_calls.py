"""What a signal handler raises while a call of a function blocks comes out of it, and the call is cancelled."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest
from real_server import until

import modal
from modal._calls import generator_session


def wait_noting(path: str, value: int = 0) -> int:
    """Returns at once without a path; else waits for a minute, and notes that it began and how it was interrupted."""
    import time
    from pathlib import Path

    if not path:
        return value
    try:
        Path(path).touch()
        for _ in range(6000):
            time.sleep(0.01)
    except BaseException as error:
        Path(path + ".interrupted").write_text(type(error).__name__)
        raise
    return value


def yield_noting(path: str) -> Iterator[int]:
    yield 1
    yield wait_noting(path)


@contextmanager
def alarm_once(begun: Path, error: BaseException, after: float = 0.0) -> Iterator[None]:
    """Raise `error` in a handler of SIGALRM, `after` seconds after there is the file `begun`."""

    is_raised = False

    def look(number: int, frame: Optional[FrameType]) -> None:
        nonlocal is_raised
        if not is_raised and begun.exists() and time.time() - begun.stat().st_mtime >= after:
            is_raised = True
            raise error

    kept = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


ERRORS = [TimeoutError("too slow"), OSError(5, "of the user's"), ConnectionResetError(), ValueError()]
CALLS: dict[str, Callable[[Any, Any, str], Any]] = {
    "remote": lambda wait, yields, path: wait.remote(path),
    "map": lambda wait, yields, path: list(wait.map([path], return_exceptions=True)),
    "remote_gen": lambda wait, yields, path: list(yields.remote_gen(path)),
}


@pytest.mark.parametrize("how", CALLS)
def test_what_a_handler_raises_comes_out_and_the_call_is_cancelled(how: str, app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    yields = app.function(serialized=True, concurrency_limit=1)(yield_noting)
    with app.run():
        after = 0.0 if how == "remote" else 0.2
        for number, error in enumerate(ERRORS):
            if how == "remote":
                until(lambda: wait.remote("", 1) == 1 and wait._direct and wait._direct._line, "a direct line")
            begun = tmp_path / f"begun-{number}"
            with pytest.raises(type(error)) as caught, alarm_once(begun, error, after):
                CALLS[how](wait, yields, str(begun))
            assert caught.value is error
            # There is one container for each: the input has ended.
            began = time.monotonic()
            assert wait.remote("", 5) == 5
            assert list(yields.remote_gen("")) == [1, 0]
            assert time.monotonic() - began < 40


def test_waiting_for_a_result_can_be_interrupted(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True)(wait_noting)
    with app.run():
        call = wait.spawn(str(tmp_path / "begun"))
        for error in ERRORS:
            with pytest.raises(type(error)) as caught, alarm_once(tmp_path / "begun", error):
                call.get()
            assert caught.value is error
        assert not (tmp_path / "begun.interrupted").exists()  # it goes on, for others to wait for
        assert wait.remote("", 5) == 5
        call.cancel()
        until((tmp_path / "begun.interrupted").exists, "the input to be interrupted")


def test_a_generator_whose_caller_is_interrupted_as_it_begins_is_cancelled(
    app: modal.App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields = app.function(serialized=True)(yield_noting)
    begun, on_loop = tmp_path / "begun", generator_session.on_loop

    async def interrupted(work: Any) -> Any:
        monkeypatch.setattr(generator_session, "on_loop", on_loop)
        value = await on_loop(work)
        until(begun.exists, "the generator to run")
        signal.raise_signal(signal.SIGALRM)
        return value

    with app.run():
        monkeypatch.setattr(generator_session, "on_loop", interrupted)
        with pytest.raises(ValueError, match="now"), alarm_once(begun, ValueError("now"), 0.0):
            list(yields.remote_gen(str(begun)))
        until(Path(f"{begun}.interrupted").exists, "the generator to be interrupted")
