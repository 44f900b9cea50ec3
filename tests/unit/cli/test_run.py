"""`modal run` up to the border of the running app: `App.run` and remote calls are replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modal.app import App
from modal.cli.errors import UserTraceback
from modal.cli.main import report, run_command_line
from modal.exception import ConnectionError, FunctionTimeoutError
from modal.functions import Function


class Runs:
    """What the app was asked, and what the fake of it does."""

    def __init__(self) -> None:
        self.settings: list[dict[str, Any]] = []
        self.ended_by: list[str] = []
        self.remote_calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.remote: Callable[..., Any] = lambda *args, **kwargs: None


@pytest.fixture
def runs(monkeypatch) -> Runs:
    made = Runs()

    @contextlib.contextmanager
    def run(self: App, **settings: Any) -> Iterator[App]:
        made.settings.append(settings)
        try:
            yield self
        except BaseException as error:
            made.ended_by.append(type(error).__name__)
            raise

    def remote(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.remote_calls.append((args, kwargs))
        return made.remote(*args, **kwargs)

    monkeypatch.setattr(App, "run", run)
    monkeypatch.setattr(Function, "remote", remote)
    monkeypatch.delenv("MODAL_TRACEBACK", raising=False)
    monkeypatch.delenv("MODAL_ENVIRONMENT", raising=False)
    return made


@pytest.fixture
def write(tmp_path, monkeypatch) -> Iterator[Callable[..., str]]:
    """Write an app file in the working directory; what it imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def make(text: str, name: str = "the_app.py") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(textwrap.dedent(text))
        return name

    yield make
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


TWO = """
    import modal
    app = modal.App("two")

    @app.local_entrypoint()
    def first(count: int = 1):
        '''Say first.'''
        print("first", count)

    @app.local_entrypoint()
    def second():
        print("second")
"""
ONE_FUNCTION = """
    import modal
    app = modal.App()

    @app.function()
    def square(x: int):
        return x * x
"""


def test_the_single_local_entrypoint_runs_with_its_options(runs, write, capsys):
    file = write("""
        import modal
        app = modal.App()

        @app.local_entrypoint()
        def main(max_models: int = 24, name: str = "grid"):
            print("models", max_models, name)
            return "result"

        @app.function()
        def helper(): ...
    """)
    assert run_command_line(["run", file, "--max-models", "3"]) == 0
    assert capsys.readouterr().out == "models 3 grid\n"
    assert runs.settings == [{"detach": False, "interactive": False, "environment_name": None}]


def test_an_async_entrypoint_runs(runs, write, capsys):
    file = write("""
        import asyncio
        import modal
        app = modal.App()

        @app.local_entrypoint()
        async def main(times: int):
            await asyncio.sleep(0)
            print("async", times)
    """)
    assert run_command_line(["run", file, "--times", "2"]) == 0
    assert capsys.readouterr().out == "async 2\n"


@pytest.mark.parametrize("reference", ["{}::second", "{}::app.second"])
def test_an_entrypoint_is_chosen_by_name(reference, runs, write, capsys):
    assert run_command_line(["run", reference.format(write(TWO))]) == 0
    assert capsys.readouterr().out == "second\n"


def test_two_entrypoints_and_none_named_lists_both(runs, write, capsys):
    assert run_command_line(["run", write(TWO)]) == 2
    err = capsys.readouterr().err
    assert err == (
        "Error: the_app.py has 2 local entrypoints: `first` and `second`. "
        "Name one, as in `modal run the_app.py::first`.\n"
    )
    assert runs.settings == []


def test_the_single_function_runs_remotely_and_its_result_is_printed(runs, write, capsys):
    runs.remote = lambda x: x * x
    assert run_command_line(["run", write(ONE_FUNCTION), "--x", "7"]) == 0
    assert capsys.readouterr().out == "49\n"
    assert runs.remote_calls == [((), {"x": 7})]


def test_a_module_runs_with_m(runs, write, capsys):
    write("", "package/__init__.py")
    write("value = 5\n", "package/sibling.py")
    write(
        """
        import modal
        from .sibling import value
        app = modal.App()

        @app.local_entrypoint()
        def main():
            print("value", value, __name__)
        """,
        "package/hello.py",
    )
    assert run_command_line(["run", "-m", "package.hello::main"]) == 0
    assert capsys.readouterr().out == "value 5 package.hello\n"
    assert run_command_line(["run", "-m", "package.helo"]) == 2
    assert "No such module: package.helo" in capsys.readouterr().err


def test_modules_beside_the_script_can_be_imported(runs, write, capsys):
    write("name = 'neighbour'\n", "folder/beside_it.py")
    file = write(
        """
        import modal, beside_it
        app = modal.App()

        @app.local_entrypoint()
        def main():
            print(beside_it.name)
        """,
        "folder/the_app.py",
    )
    assert run_command_line(["run", file]) == 0
    assert capsys.readouterr().out == "neighbour\n"


def test_help_of_an_entrypoint_shows_its_options_and_docstring(runs, write, capsys):
    assert run_command_line(["run", write(TWO) + "::first", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: modal run the_app.py::first [OPTIONS]" in out
    assert "Say first." in out
    assert "--count INTEGER" in out
    assert "[default: 1]" in out
    assert runs.settings == []


def test_detach_and_environment_reach_the_app(runs, write, monkeypatch):
    monkeypatch.setenv("MODAL_ENVIRONMENT", "")
    assert run_command_line(["run", "--detach", "-e", "staging", write(TWO) + "::first"]) == 0
    assert runs.settings == [{"detach": True, "interactive": False, "environment_name": "staging"}]
    assert os.environ["MODAL_ENVIRONMENT"] == "staging"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing.py"], 2, "No such file: missing.py."),
        (["the_ap.py"], 2, "No such file: the_ap.py. Did you mean `the_app.py`?"),
        (["the_app"], 2, "Did you mean `the_app.py`?"),
        (["."], 2, ". is a directory: name the Python file in it that defines the app."),
        (["data.txt"], 2, "data.txt is not a Python file"),
        (["::main"], 2, "`::main` names no file"),
        (["the_app.py::frist"], 1, "the_app.py has no function or entrypoint `frist`. Did you mean `first`?"),
        (["the_app.py::app.frist"], 1, "has no function or entrypoint `frist`. Did you mean `first`?"),
        (["the_app.py::Model.method"], 1, "The class `Model` belongs to no app: decorate it with `@app.cls()`."),
        (["the_app.py::first", "--count", "many"], 2, "Invalid value for '--count': 'many' is not a valid int"),
        (["the_app.py::first", "--cuont", "1"], 2, "`first` has no option `--cuont`. Did you mean `--count`?"),
        (["the_app.py::first", "--detach"], 2, "`--detach` is an option of `modal run`: put it before the reference."),
        (["-m", "the_app.py"], 2, "leave out -m"),
        (["--quite", "the_app.py"], 2, "No such option"),
        (["-w", "no/such/file", "the_app.py::first"], 2, "the directory no/such does not exist"),
        (["-w", ".", "the_app.py::first"], 2, "is a directory"),
    ],
)
def test_a_mistake_is_one_clear_sentence(arguments, code, sentence, runs, write, capsys):
    file = write(TWO)
    Path("data.txt").write_text("x")
    Path(file).write_text(Path(file).read_text() + "\nclass Model:\n    def method(self): ...\n")
    assert run_command_line(["run", *arguments]) == code
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.startswith("Error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert runs.settings == []


def test_a_syntax_error_shows_the_line(runs, write, capsys):
    file = write("import modal\n\nif True:\n    app = modal.App(]\n")
    assert run_command_line(["run", file]) == 1
    err = capsys.readouterr().err
    assert f"Syntax error in {Path(file).resolve()}, line 4: " in err
    assert "\n    app = modal.App(]\n" in err
    assert "Traceback" not in err


def test_an_error_while_importing_shows_the_users_frames_only(runs, write, capsys):
    write("def fail():\n    raise ValueError('broken configuration')\n", "settings_file.py")
    file = write("import settings_file\nsettings_file.fail()\n")
    assert run_command_line(["run", file]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("ValueError: broken configuration\n")
    assert "the_app.py" in err
    assert "settings_file.py" in err
    assert "import_app.py" not in err
    assert "importlib" not in err


def test_a_relative_import_in_a_file_points_to_m(runs, write, capsys):
    assert run_command_line(["run", write("from . import neighbour\n")]) == 1
    err = capsys.readouterr().err
    assert "run it as a module, as in `modal run -m package.module`." in err
    assert "Traceback" not in err


def test_a_file_without_an_app_says_so(runs, write, capsys):
    assert run_command_line(["run", write("x = 1\n")]) == 1
    assert "the_app.py defines no app" in capsys.readouterr().err


def test_a_file_named_like_a_module_in_use_is_refused(runs, write, capsys):
    assert run_command_line(["run", write(ONE_FUNCTION, "modal.py")]) == 2
    assert "rename the file" in capsys.readouterr().err


def test_an_exception_of_the_entrypoint_is_shown_without_our_frames(runs, write, capsys):
    file = write("""
        import modal
        app = modal.App()

        @app.local_entrypoint()
        def main():
            raise KeyError("what the user did")
    """)
    assert run_command_line(["run", file]) == 1
    err = capsys.readouterr().err
    assert err.count("  File ") == 1
    assert "the_app.py" in err
    assert err.endswith("KeyError: 'what the user did'\n")
    assert runs.ended_by == ["KeyError"]


def test_the_full_traceback_comes_with_modal_traceback(runs, write, capsys, monkeypatch):
    monkeypatch.setenv("MODAL_TRACEBACK", "1")
    file = write("import modal\napp = modal.App()\n@app.local_entrypoint()\ndef main():\n    1 / 0\n")
    assert run_command_line(["run", file]) == 1
    assert "cli/run.py" in capsys.readouterr().err


def test_an_error_of_the_platform_without_user_frames_is_one_sentence(capsys):
    failure = UserTraceback("square")
    failure.__cause__ = FunctionTimeoutError("The function `square` ran longer than its timeout of 1 s.")
    assert report(failure) == 1
    assert capsys.readouterr().err == "Error: The function `square` ran longer than its timeout of 1 s.\n"


def test_a_server_that_cannot_be_reached_is_one_sentence(runs, write, capsys, monkeypatch):
    @contextlib.contextmanager
    def run(self: App, **settings: Any) -> Iterator[App]:
        raise ConnectionError("The server at unix:///x cannot be reached.")
        yield self

    monkeypatch.setattr(App, "run", run)
    assert run_command_line(["run", write(ONE_FUNCTION), "--x", "1"]) == 1
    assert capsys.readouterr().err == "Error: The server at unix:///x cannot be reached.\n"


def test_an_exit_code_of_the_entrypoint_is_kept(runs, write):
    file = write("import modal, sys\napp = modal.App()\n@app.local_entrypoint()\ndef main():\n    sys.exit(7)\n")
    assert run_command_line(["run", file]) == 7


def test_ctrl_c_stops_the_app_and_exits_with_130(runs, write, capsys):
    before = signal.getsignal(signal.SIGINT)
    file = write("""
        import modal, signal
        app = modal.App()

        @app.local_entrypoint()
        def main():
            signal.raise_signal(signal.SIGINT)
    """)
    assert run_command_line(["run", file]) == 130
    assert "Interrupted: stopping the app and its containers" in capsys.readouterr().err
    assert runs.ended_by == ["KeyboardInterrupt"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("value", "written"), [("'text é'", "text é".encode()), ("b'\\x00bytes'", b"\x00bytes")])
def test_the_result_is_written_to_a_file(value, written, runs, write, tmp_path):
    file = write(f"import modal\napp = modal.App()\n@app.local_entrypoint()\ndef main():\n    return {value}\n")
    Path("result").write_bytes(b"old")
    assert run_command_line(["run", "--write-result", "result", file]) == 0
    assert Path("result").read_bytes() == written
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_a_result_of_another_type_is_not_written(runs, write, capsys):
    file = write("import modal\napp = modal.App()\n@app.local_entrypoint()\ndef main():\n    return 3\n")
    Path("result").write_bytes(b"old")
    assert run_command_line(["run", "--write-result", "result", file]) == 1
    assert "returned int; result was not written" in capsys.readouterr().err
    assert Path("result").read_bytes() == b"old"


def test_apps_beside_the_variable_app_do_not_make_a_bare_reference_ambiguous(runs, write, capsys):
    file = write("""
        import modal
        other = modal.App("other")
        app = modal.App("main")

        @other.local_entrypoint()
        def theirs(): print("theirs")

        @app.local_entrypoint()
        def ours(): print("ours")
    """)
    assert run_command_line(["run", file]) == 0
    assert run_command_line(["run", file + "::other"]) == 0
    assert capsys.readouterr().out == "ours\ntheirs\n"
