"""The runner with a class: its instance, its hooks and its methods, as a real process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from fake_agent import Agent

from modal._serialization import deserialize_failure, serialize
from modal._wire.messages.call import Status
from modal._wire.messages.function import ClassSpec, MethodSpec

SCRIPT = """
import asyncio, os, threading, time
import modal
app = modal.App("x")

@app.cls()
class Model:
    size: int = modal.parameter(default=2)

    @modal.enter()
    def second(self):
        print("second", self.size, threading.current_thread() is threading.main_thread(), modal.is_local())

    @modal.enter(snap=True)
    def first(self):
        print("first")

    @modal.method()
    def work(self, x):
        return x * self.size

    @modal.method()
    def hang(self):
        open("begun", "w").close()
        while True:
            time.sleep(0.01)

    @modal.method()
    def values(self, n):
        yield from range(n)

    @modal.method()
    def other(self):
        return self.work(1), self.work.local(2), list(self.values(2)), self.size

    @modal.exit()
    def last(self):
        print("exit", threading.current_thread() is threading.main_thread())
"""
ASYNC = SCRIPT.replace("def work(self, x):", "async def work(self, x):").replace(
    "self.work(1), self.work.local(2)", "1, 2"
)
METHODS = {name: MethodSpec(name == "values") for name in ("work", "hang", "values", "other")}
SPEC = ClassSpec(METHODS, has_exit_hooks=True)
KINDS = pytest.mark.parametrize(
    ("script", "concurrency"),
    [(SCRIPT, 1), (SCRIPT, 3), (ASYNC, 1), (ASYNC, 3)],
    ids=["main", "threads", "async", "tasks"],
)
PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))


def start(script: str, concurrency: int = 1, **options: Any) -> Agent:
    agent = Agent(script, **options)
    return agent.ready("Model", cls=SPEC, parameters=json.dumps({"size": 3}).encode(), concurrency=concurrency)


@KINDS
def test_hooks_and_methods_run_on_one_instance(script: str, concurrency: int) -> None:
    with start(script, concurrency) as agent:
        assert agent.call(2, method="work")[1] == 6
        assert agent.call(method="other")[1][2:] == ([0, 1], 3)
        agent.call(3, name="values", method="values")
        assert agent.yielded["values"] == [0, 1, 2]
        agent.stop()
        code, out, err = agent.wait()
        assert (code, out, err) == (0, "first\nsecond 3 True False\nexit True\n", "")


@KINDS
@pytest.mark.parametrize("how", ["Stop", "SIGTERM", "SIGINT"])
def test_a_running_input_is_interrupted_before_the_exit_hooks_run(script: str, concurrency: int, how: str) -> None:
    with start(script, concurrency) as agent:
        agent.push(("a", ()), method="hang")
        agent.wait_for_file("begun")
        agent.stop() if how == "Stop" else agent.signal(signal.Signals[how])
        record, _ = agent.output("a")
        assert record.status is Status.INTERNAL_FAILURE
        assert record.error is not None
        assert "Model.hang" in record.error.message
        code, out, _ = agent.wait()
        assert code == 0
        assert out.endswith("exit True\n")


@KINDS
def test_an_idle_container_runs_its_exit_hooks_after_a_signal(script: str, concurrency: int) -> None:
    with start(script, concurrency) as agent:
        agent.signal(signal.SIGTERM)
        code, out, _ = agent.wait()
        assert code == 0
        assert out.endswith("exit True\n")


@KINDS
def test_a_method_that_is_not_there_fails_its_input_only(script: str, concurrency: int) -> None:
    with start(script, concurrency) as agent:
        record, failure = agent.call(method="nothing")
        assert record.status is Status.FAILURE
        assert "has no method 'nothing'; its methods are: work, hang, values, other" in str(failure)
        assert agent.call(1, method="work")[1] == 3


@KINDS
def test_a_method_can_be_cancelled(script: str, concurrency: int) -> None:
    with start(script, concurrency) as agent:
        agent.push(("a", ()), method="hang")
        agent.wait_for_file("begun")
        agent.cancel("a")
        assert agent.output("a")[0].status is Status.TERMINATED
        assert agent.call(1, method="work")[1] == 3


def test_a_stop_while_the_enter_hooks_run_ends_without_exit_hooks() -> None:
    script = SCRIPT.replace('print("first")', 'open("begun", "w").close(); time.sleep(60)')
    with Agent(script) as agent:
        agent.send_start("Model", cls=SPEC)
        agent.wait_for_file("begun")
        agent.stop()
        code, out, _ = agent.wait()
        assert (code, out) == (0, "")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (('print("first")', "raise ValueError('no')"), ValueError, "The enter hook Model.first raised ValueError: no"),
        (('print("first")', "raise SystemExit(2)"), None, "called sys.exit(2)"),
        (("class Model:", "class Other:"), None, "has no 'Model'"),
        (("@app.cls()\nclass Model:", "Model = 3\nclass Other:"), None, "is a int in the container, not a class"),
    ],
)
def test_what_keeps_a_class_from_starting_is_said(
    change: tuple[str, str], kind: type[BaseException] | None, words: str
) -> None:
    with Agent(SCRIPT.replace(*change)) as agent:
        failed, payload = agent.start("Model", cls=SPEC)
        assert type(failed).__name__ == "StartFailed"
        assert words in failed.error.message
        if kind is not None:
            exc = deserialize_failure(payload)
            assert type(exc) is kind
            assert "the enter hook Model.first" in "".join(getattr(exc, "__notes__", []))
        assert agent.wait()[0] == 71


@pytest.mark.parametrize("parameters", [b"{", b'{"sise": 1}', b"\xff"])
def test_parameters_that_do_not_fit_are_said(parameters: bytes) -> None:
    with Agent(SCRIPT) as agent:
        failed, _ = agent.start("Model", cls=SPEC, parameters=parameters)
        assert "The constructor of Model raised" in failed.error.message


def test_pickled_arguments_reach_the_constructor() -> None:
    script = (
        "class Model:\n    def __init__(self, a, b=1): self.all = (a, b)\n"
        "    import modal\n    @modal.method()\n    def tell(self): return self.all"
    )
    with Agent(script) as agent:
        spec = ClassSpec({"tell": MethodSpec()}, has_constructor=True)
        agent.ready("Model", cls=spec, parameters=serialize((([1],), {"b": {2}})))
        assert agent.call(method="tell")[1] == ([1], {2})


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_every_supported_python_runs_classes(python: Path) -> None:
    if tuple(map(int, python.parts[-3].split(".")[:2])) < (3, 9):
        pytest.skip("older than what the SDK supports")
    for script in (SCRIPT, ASYNC):
        with start(script, python=str(python)) as agent:
            assert agent.call(2, method="work")[1] == 6
            agent.stop()
            code, out, _ = agent.wait()
            assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "first", "exit True")
