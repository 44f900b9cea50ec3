"""What user code raises arrives as itself, from every way to call, in the client and in other containers."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import modal
from modal.exception import DeserializationError, ExecutionError, FunctionTimeoutError, RemoteError, SerializationError
from modal.functions import gather

MODULE = """
    class OutOfPaper(Exception):
        def __init__(self, tray, *, sheets):
            super().__init__(f"tray {tray} has {sheets} sheets")
            self.tray = tray
            self.sheets = sheets

        def __reduce__(self):
            return _make, (self.tray, self.sheets), self.__dict__

    def _make(tray, sheets):
        return OutOfPaper(tray, sheets=sheets)

    class Stubborn(Exception):
        def __reduce__(self):
            raise TypeError("I stay here")
"""


@pytest.fixture
def printers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module with exceptions that is importable here and, as containers are plain processes, there."""
    (tmp_path / "printers_of_test.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    import printers_of_test  # type: ignore[import-not-found]

    yield printers_of_test
    del sys.modules["printers_of_test"]


def print_page(path: str, kind: str) -> None:
    import sys

    sys.path.insert(0, path)
    import printers_of_test

    if kind == "stubborn":
        raise printers_of_test.Stubborn("no way")
    try:
        {}["driver"]
    except KeyError as error:
        failure = printers_of_test.OutOfPaper(2, sheets=0)
        failure.hint = "load tray 2"
        if sys.version_info >= (3, 11):
            failure.add_note("It happens on Mondays.")
        raise failure from error


def check(error: BaseException) -> None:
    assert type(error).__name__ == "OutOfPaper"
    assert str(error) == "tray 2 has 0 sheets"
    assert (error.tray, error.sheets, error.hint) == (2, 0, "load tray 2")  # type: ignore[attr-defined]
    assert getattr(error, "__notes__", None) == ["It happens on Mondays."]
    assert (type(error.__cause__), error.__cause__.args) == (KeyError, ("driver",))  # type: ignore[union-attr]
    shown = "".join(traceback.format_exception(error))
    assert "in print_page" in shown
    assert "The above exception was the direct cause" in shown


WAYS: dict[str, Callable[[Any, tuple[str, str]], object]] = {
    "remote": lambda f, args: f.remote(*args),
    "spawn": lambda f, args: f.spawn(*args).get(),
    "gather": lambda f, args: gather(f.spawn(*args)),
    "map": lambda f, args: list(f.map(*[[one] for one in args])),
    "starmap": lambda f, args: list(f.starmap([args])),
    "for_each": lambda f, args: f.for_each(*[[one] for one in args]),
}


def test_the_users_own_exception_arrives_whole_whichever_way_it_is_called(
    app: modal.App, printers: Any, tmp_path: Path
) -> None:
    function = app.function(serialized=True)(print_page)
    with app.run():
        for way, call in WAYS.items():
            with pytest.raises(printers.OutOfPaper) as caught:
                call(function, (str(tmp_path), "paper"))
            check(caught.value)
            assert way
        [kept] = function.starmap([(str(tmp_path), "paper")], return_exceptions=True)
        check(kept)


async def test_the_async_forms_raise_it_too(app: modal.App, printers: Any, tmp_path: Path) -> None:
    function = app.function(serialized=True)(print_page)
    args = (str(tmp_path), "paper")
    async with app.run():
        with pytest.raises(printers.OutOfPaper) as caught:
            await function.remote.aio(*args)
        check(caught.value)
        call = await function.spawn.aio(*args)
        with pytest.raises(printers.OutOfPaper) as caught:
            await call.get.aio()
        check(caught.value)
        with pytest.raises(printers.OutOfPaper) as caught:
            _ = [one async for one in function.starmap.aio([args])]
        check(caught.value)


def test_code_in_a_container_catches_it_by_its_class(app: modal.App, printers: Any, tmp_path: Path) -> None:
    function = app.function(serialized=True, name="print_page")(print_page)

    @app.function(serialized=True)
    def office(path: str) -> tuple[int, str, str]:
        import sys

        sys.path.insert(0, path)
        from printers_of_test import OutOfPaper

        try:
            function.remote(path, "paper")
        except OutOfPaper as error:
            return error.tray, error.hint, repr(error.__cause__)
        raise AssertionError("it did not raise")

    @app.function(serialized=True)
    def careless(path: str) -> None:
        import sys

        sys.path.insert(0, path)
        function.remote(path, "paper")

    with app.run():
        assert office.remote(str(tmp_path)) == (2, "load tray 2", "KeyError('driver')")
        with pytest.raises(printers.OutOfPaper) as caught:  # through two containers
            careless.remote(str(tmp_path))
        check(caught.value)
        assert "in careless" in "".join(traceback.format_exception(caught.value))


def test_one_that_does_not_pickle_itself_arrives_all_the_same(app: modal.App, printers: Any, tmp_path: Path) -> None:
    function = app.function(serialized=True)(print_page)
    with app.run(), pytest.raises(printers.Stubborn, match="no way"):
        function.remote(str(tmp_path), "stubborn")


def test_one_whose_class_cannot_be_pickled_arrives_as_text(app: modal.App) -> None:
    @app.function(serialized=True)
    def fail() -> None:
        import threading

        class Local(Exception):
            lock = threading.Lock()

        raise Local("no way")

    with app.run(), pytest.raises(RemoteError) as caught:
        fail.remote()
    assert str(caught.value).endswith("Local: no way")
    shown = "".join(traceback.format_exception(caught.value))
    assert "in fail" in shown
    assert "it cannot be pickled" in shown
    assert "lock" in shown


def test_one_that_cannot_be_imported_here_arrives_as_text(app: modal.App, tmp_path: Path) -> None:
    (tmp_path / "printers_of_test.py").write_text(textwrap.dedent(MODULE))
    function = app.function(serialized=True)(print_page)
    with app.run(), pytest.raises(RemoteError) as caught:
        function.remote(str(tmp_path), "paper")
    assert str(caught.value) == "printers_of_test.OutOfPaper: tray 2 has 0 sheets"
    shown = "".join(traceback.format_exception(caught.value))
    assert "in print_page" in shown
    assert "It happens on Mondays." in shown
    assert "it cannot be unpickled here" in shown
    assert "the module 'printers_of_test' is not installed here" in shown


def test_results_and_arguments_that_do_not_travel_are_named(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True)
    def lock(x: object) -> object:
        import threading

        return threading.Lock()

    @app.function(serialized=True)
    def foreign(path: str) -> object:
        import sys

        sys.path.insert(0, path)
        import printers_of_test

        return printers_of_test.OutOfPaper(1, sheets=1)

    (tmp_path / "printers_of_test.py").write_text(textwrap.dedent(MODULE))
    import threading

    with app.run():
        with pytest.raises(SerializationError, match="lock"):
            lock.remote(1)
        with pytest.raises(SerializationError, match="argument 1 of lock"):
            lock.remote(threading.Lock())
        with pytest.raises(SerializationError, match="argument 'x' of lock"):
            lock.spawn(x=threading.Lock())
        with pytest.raises(DeserializationError, match="printers_of_test"):
            foreign.remote(str(tmp_path))


def test_what_ends_a_process_or_takes_too_long_is_typed(app: modal.App) -> None:
    @app.function(serialized=True)
    def leave() -> None:
        raise SystemExit(3)

    @app.function(serialized=True)
    def die() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    @app.function(serialized=True, timeout=1)
    def spin() -> None:
        while True:
            pass

    @app.function(serialized=True)
    def inside() -> list[str]:
        said = []
        for function in (leave, die, spin):
            try:
                function.remote()
            except Exception as error:
                said.append(type(error).__name__)
        return said

    with app.run():
        with pytest.raises(ExecutionError, match=r"sys\.exit\(3\)"):
            leave.remote()
        with pytest.raises(ExecutionError, match="SIGKILL"):
            die.remote()
        with pytest.raises(FunctionTimeoutError, match="timeout of 1 s"):
            spin.remote()
        assert inside.remote() == ["ExecutionError", "ExecutionError", "FunctionTimeoutError"]


def test_a_generators_failure_comes_after_what_it_yielded(app: modal.App, printers: Any, tmp_path: Path) -> None:
    @app.function(serialized=True)
    def pages(path: str) -> Iterator[int]:
        yield 1
        print_page(path, "paper")

    with app.run():
        for values in (iter(pages.remote_gen(str(tmp_path))), iter(pages.spawn(str(tmp_path)).get_gen())):
            assert next(values) == 1
            with pytest.raises(printers.OutOfPaper) as caught:
                next(values)
            check(caught.value)
