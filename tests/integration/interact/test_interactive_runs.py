"""`modal run --interactive` at a terminal: a real server, containers as plain processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pty_session import PtySession, terminal

APP = """
    import os, sys, time
    import modal
    app = modal.App("asks")
    image = modal.Image.debian_slim()

    @app.function()
    def ask(question: str = "name? "):
        modal.interact()
        modal.interact()  # connected already
        answer = input(question)
        print("got", answer, *os.get_terminal_size())
        return answer.upper()

    @app.function(timeout=2)
    def slowly():
        modal.interact()
        print("begun")
        answer = input()
        time.sleep(0.5)
        return answer

    @app.function(allow_concurrent_inputs=4)
    def in_a_thread():
        return ask.local("thread? ")

    @app.function()
    async def in_a_task():
        return ask.local("task? ")

    @app.function(allow_concurrent_inputs=4, timeout=2)
    async def in_a_slow_task():
        return ask.local("slow? ")

    @app.function()
    def in_a_generator():
        yield 1
        yield ask.local("generator? ")

    @app.function()
    def stops():
        first, second = 1, 2
        breakpoint()
        total = first + second
        return total

    @app.function()
    def caller(first: bool):
        if first:
            modal.interact()
        return "called " + ask.remote("nested? ")

    @app.function()
    def catches():
        modal.interact()
        try:
            print("waiting")
            time.sleep(100)
        except KeyboardInterrupt:
            return "caught"

    @app.function()
    def fails():
        modal.interact()
        print("no newline", end="", flush=True)
        raise ValueError("failed at the terminal")

    @app.function()
    def floods():
        modal.interact()
        sys.stdout.write("x" * 3_000_000 + "\\n")
        print("the end")
        return "flooded"

    @app.function()
    def prints(path: str):
        print("from the other container", flush=True)
        open(path, "w").close()

    @app.function()
    def notes_the_end(path: str):
        modal.interact()
        try:
            sys.stdout.write("ready")
            sys.stdout.flush()
            outcome = "got " + input()
        except EOFError:
            outcome = "end of input"
        print("back in the log")
        with open(path, "w") as file:
            file.write(outcome)

    @app.function()
    def mode():
        return app.is_interactive, sys.stdin.isatty()

    @app.cls(timeout=2)
    class Model:
        @modal.enter()
        def prepare(self):
            modal.interact()
            self.size = input("size? ")

        @modal.method()
        def answer(self):
            modal.interact()
            return "size " + self.size + input("more? ")

        @modal.method()
        async def answer_later(self):
            return self.answer.local()

    @app.cls()
    class Leaver:
        @modal.method()
        def work(self):
            return "worked"

        @modal.exit()
        def leave(self):
            modal.interact()
            print("left with", input("last words? "))

    @app.local_entrypoint()
    def leaver():
        print(Leaver().work.remote())

    @app.local_entrypoint()
    def model(method: str):
        print("result", getattr(Model(), method).remote())

    @app.local_entrypoint()
    def two():
        print("results", sorted(ask.map(["one? ", "two? "])))

    @app.local_entrypoint()
    def beside(path: str):
        asked = ask.spawn("busy? ")
        while not os.path.exists(path + ".go"):
            time.sleep(0.02)
        prints.remote(path)
        print("from this process")
        print("answer", asked.get())

    @app.local_entrypoint()
    def local():
        assert app.is_interactive
        modal.interact()
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("interact")
    chosen = {"DATA_DIR": str(folder / "data"), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1"}
    chosen["SESSION_GRACE"] = "0.5"
    environ = {**os.environ, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}
    environ.update(MODAL_CONFIG_PATH=str(folder / "modal.toml"))
    command = [sys.executable, "-m", "intermodal.cli"]
    subprocess.run([*command, "up", "--quiet"], env=environ, check=True, timeout=60)
    yield environ
    subprocess.run([*command, "down"], env=environ, check=True, timeout=60, stdout=subprocess.DEVNULL)


class Runs:
    def __init__(self, environ: dict[str, str], path: Path) -> None:
        self.environ, self.path = environ, path

    def command(self, function: str, *args: str, flags: tuple[str, ...] = ("-i",)) -> list[str]:
        return [sys.executable, "-m", "modal.cli.main", "run", *flags, f"{self.path}::{function}", *args]

    def modal(self, *args: str) -> str:
        command = [sys.executable, "-m", "modal.cli.main", *args]
        return subprocess.run(command, env=self.environ, check=True, capture_output=True, text=True, timeout=60).stdout

    @contextmanager
    def terminal(self, function: str, *args: str, flags: tuple[str, ...] = ("-i",)) -> Iterator[PtySession]:
        with terminal(self.command(function, *args, flags=flags), self.environ, rows=30, columns=100) as session:
            yield session

    def piped(self, function: str, text: str, flags: tuple[str, ...] = ("-i",)) -> subprocess.CompletedProcess[str]:
        command = self.command(function, flags=flags)
        return subprocess.run(command, env=self.environ, input=text, capture_output=True, text=True, timeout=60)


@pytest.fixture
def runs(environ: dict[str, str], tmp_path: Path) -> Runs:
    path = tmp_path / "asking.py"
    path.write_text(textwrap.dedent(APP))
    return Runs(environ, path)


def test_a_container_asks_and_is_answered(runs: Runs) -> None:
    with runs.terminal("ask") as session:
        session.wait_for("name? ")
        assert session.is_raw()
        session.resize(33, 111)
        time.sleep(0.5)  # nobody says when the new size has arrived
        session.type("bob\r")
        assert session.end() == 0
        assert "got bob 111 33" in session.screen
        assert "BOB" in session.screen


def test_a_breakpoint_connects_by_itself_and_ctrl_c_interrupts(runs: Runs) -> None:
    with runs.terminal("stops") as session:
        session.wait_for("(Pdb) ")
        assert "total = first + second" in session.screen
        session.type("import time; print('sle' + 'eping'); time.sleep(100)\r")
        session.wait_for("sleeping")
        session.type("\x03")
        session.wait_for("(Pdb) ", count=2)
        session.type("first = 40\r")
        session.wait_for("(Pdb) ", count=3)
        session.type("n\r")
        session.wait_for("(Pdb) ", count=4)
        session.type("c\r")
        assert session.end() == 0
        assert "42" in session.screen
        assert "modal/_container" not in session.screen


def test_leaving_the_debugger_fails_the_input(runs: Runs) -> None:
    with runs.terminal("stops") as session:
        session.wait_for("(Pdb) ")
        session.type("q\r")
        assert session.end() == 1
        assert "BdbQuit" in session.screen


@pytest.mark.parametrize(
    ("function", "question", "result"),
    [
        ("in_a_thread", "thread? ", "YES"),
        ("in_a_task", "task? ", "YES"),
        ("in_a_generator", "generator? ", "YES"),
    ],
)
def test_every_kind_of_function_can_ask(function: str, question: str, result: str, runs: Runs) -> None:
    with runs.terminal(function) as session:
        session.wait_for(question)
        session.type("yes\r")
        assert session.end() == 0
        assert result in session.screen


def test_ctrl_c_is_the_containers(runs: Runs) -> None:
    with runs.terminal("catches") as session:
        session.wait_for("waiting")
        session.type("\x03")
        assert session.end() == 0
        assert "caught" in session.screen
    with runs.terminal("in_a_task") as session:
        session.wait_for("task? ")
        session.type("\x03")
        assert session.end() == 1
        assert "KeyboardInterrupt" in session.screen


def test_a_function_that_waits_at_the_terminal_does_not_block_those_it_calls(runs: Runs) -> None:
    with runs.terminal("caller", "--first") as session:
        assert session.end() == 1
        assert "InvalidError: The terminal is with the function that called this one" in session.screen
    with runs.terminal("caller", "--no-first") as session:
        session.wait_for("nested? ")
        session.type("yes\r")
        assert session.end() == 0
        assert "called YES" in session.screen


@pytest.mark.parametrize(("function", "sign"), [("slowly", "begun"), ("in_a_slow_task", "slow? ")])
def test_time_at_the_terminal_is_not_counted(function: str, sign: str, runs: Runs) -> None:
    with runs.terminal(function) as session:
        session.wait_for(sign)
        time.sleep(5)  # longer than the timeout and all that the server adds to it
        session.type("patience\r")
        assert session.end() == 0
        assert "patience" in session.screen.lower()


@pytest.mark.parametrize("method", ["answer", "answer_later"])
def test_hooks_of_a_class_and_its_methods_can_ask(method: str, runs: Runs) -> None:
    with runs.terminal("model", "--method", method) as session:
        session.wait_for("size? ")
        time.sleep(4)  # longer than what loading may take
        session.type("7\r")
        session.wait_for("more? ")
        session.type(" and more\r")
        assert session.end() == 0
        assert "result size 7 and more" in session.screen


def test_an_exit_hook_can_ask(runs: Runs) -> None:
    with runs.terminal("leaver") as session:
        session.wait_for("last words? ")
        session.type("farewell\r")
        assert session.end() == 0
        assert "left with farewell" in session.screen


def test_a_failure_ends_the_session_and_is_shown(runs: Runs) -> None:
    with runs.terminal("fails") as session:
        assert session.end() == 1
        assert "no newline" in session.screen
        assert "ValueError: failed at the terminal" in session.screen


def test_nothing_of_a_flood_is_lost(runs: Runs) -> None:
    with runs.terminal("floods") as session:
        assert session.end() == 0
        assert session.screen.count("x") >= 3_000_000
        assert "the end" in session.screen


def test_containers_have_the_terminal_one_after_the_other(runs: Runs) -> None:
    with runs.terminal("two") as session:
        session.wait_for("? ")
        assert session.screen.count("one? ") + session.screen.count("two? ") == 1
        session.type("first\r")
        session.wait_for("got first")
        session.wait_for("one? ")
        session.wait_for("two? ")
        session.type("second\r")
        assert session.end() == 0
        assert "results ['FIRST', 'SECOND']" in session.screen


def test_other_output_waits_until_the_terminal_is_free(runs: Runs, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with runs.terminal("beside", "--path", str(mark)) as session:
        session.wait_for("busy? ")
        (tmp_path / "mark.go").touch()
        deadline = time.monotonic() + 30
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        session.type("still ")
        session.wait_for("still ")
        assert "from the other container" not in session.screen
        assert "from this process" not in session.screen
        session.type("here\r")
        assert session.end() == 0
        after = session.screen.partition("got still here")[2]
        assert "from the other container" in after
        assert "from this process" in after
        assert "answer STILL HERE" in after


def test_a_client_that_dies_leaves_the_end_of_input(runs: Runs, tmp_path: Path) -> None:
    outcome = tmp_path / "outcome"
    with runs.terminal("notes_the_end", "--path", str(outcome), flags=("-i", "-d")) as session:
        session.wait_for("ready")
        app_id = "ap-" + session.screen.partition("App ap-")[2][:22]
        os.killpg(session.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not (outcome.exists() and outcome.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert outcome.read_text() == "end of input"
    assert runs.modal("app", "logs", app_id).endswith("back in the log\n")


def test_a_client_that_is_told_to_end_restores_the_terminal(runs: Runs) -> None:
    with runs.terminal("ask") as session:
        session.wait_for("name? ")
        session.process.send_signal(signal.SIGTERM)
        assert session.end() == 128 + signal.SIGTERM


def test_a_container_that_is_stopped_asks_again_from_another(runs: Runs) -> None:
    with runs.terminal("ask") as session:
        session.wait_for("name? ")
        listed = runs.modal("container", "list", "--json")
        [one] = [row for row in json.loads(listed) if row["function"] == "ask"]
        runs.modal("container", "stop", one["container_id"])
        session.wait_for("name? ", count=2)
        session.type("again\r")
        assert session.end() == 0
        assert "AGAIN" in session.screen


def test_a_program_can_run_its_app_interactively(runs: Runs) -> None:
    path = runs.path.with_name("program.py")
    path.write_text(
        textwrap.dedent(
            """
            import modal
            from asking import app, ask

            assert not app.is_interactive
            with modal.enable_output():
                with app.run(interactive=True):
                    assert app.is_interactive
                    print("result", ask.remote("program? "))
            assert not app.is_interactive
            try:
                with app.run(interactive=True):
                    pass
            except modal.exception.InvalidError as error:
                assert "enable_output" in str(error)
            """
        )
    )
    with terminal([sys.executable, path], runs.environ, cwd=path.parent) as session:
        session.wait_for("program? ")
        session.type("yes\r")
        assert session.end() == 0
        assert "result YES" in session.screen


def test_answers_may_come_from_a_pipe(runs: Runs) -> None:
    done = runs.piped("ask", "piped\n")
    assert done.returncode == 0, done
    assert "got piped" in done.stdout
    assert done.stdout.endswith("PIPED\n")
    ended = runs.piped("ask", "")
    assert ended.returncode == 1
    assert "EOFError" in ended.stderr


def test_without_interactive_mode_the_error_says_how(runs: Runs) -> None:
    done = runs.piped("ask", "x\n", flags=())
    assert done.returncode == 1
    assert "InvalidError" in done.stderr
    assert "modal run --interactive" in done.stderr
    assert runs.piped("mode", "", flags=()).stdout == "(False, False)\n"
    assert runs.piped("mode", "").stdout == "(True, False)\n"
    local = runs.piped("local", "")
    assert local.returncode == 1
    assert "InvalidError: modal.interact() connects a container to your terminal" in local.stderr
