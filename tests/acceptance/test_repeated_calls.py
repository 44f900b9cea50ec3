"""Programs that call a function again and again, which goes over a direct line, in real containers."""

from __future__ import annotations

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e

CALLER = """
    import os, signal, time
    import modal

    app = modal.App("caller")

    @app.function(concurrency_limit=1)
    def work(what, value=None):
        if what == "sleep":
            time.sleep(value)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "fail":
            raise ValueError(value)
        if what == "id":
            return modal.current_function_call_id()
        return value

    @app.function(retries=modal.Retries(max_retries=1, initial_delay=0.0), timeout=2)
    def other(what, value=None):
        if what == "sleep":
            time.sleep(value)
        return value

    def get_line(function):
        for _ in range(2000):
            assert function.remote("", 1) == 1
            line = function._direct._line
            if line is not None and line.answered:
                return
            time.sleep(0.01)
        raise AssertionError("there is no direct line")

    def raises(kind, *args, function=work):
        try:
            function.remote(*args)
        except kind as error:
            return str(error)
        raise AssertionError("nothing was raised")

    @app.local_entrypoint()
    def main():
        get_line(work)
        assert [work.remote("", number) for number in range(500)] == list(range(500))
        assert raises(ValueError, "fail", "as it should") == "as it should"
        get_line(work)
        assert work.remote("sleep", 0.2) == 0.2
        call_id = work.remote("id")
        assert modal.FunctionCall.from_id(call_id).get(timeout=10) == call_id
        get_line(work)
        print("died:", raises(modal.exception.ExecutionError, "die"))
        get_line(work)
        get_line(other)
        print("late:", raises(modal.exception.FunctionTimeoutError, "sleep", 30, function=other))
        assert sum(work.map([""] * 50, range(50))) == sum(range(50))
        print("all is well")
"""

SERVICE = """
    import modal
    app = modal.App("versions")

    @app.function(keep_warm=1)
    def version():
        return VERSION
"""

USER = """
    import modal
    version = modal.Function.from_name("versions", "version")
    current = None
    while current != 2:
        before, current = current, version.remote()
        if current != before:
            print("version", current, flush=True)
            for _ in range(500):
                assert version.remote() in (current, 2)
            print("line", version._direct._line is not None, flush=True)
    for _ in range(200):
        assert version.remote() == 2
    print("done", flush=True)
"""


def test_everything_that_can_happen_to_a_direct_call(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", "--quiet", program(CALLER)).succeeded()
    assert "SIGKILL" in ran.out
    assert "timeout of 2" in ran.out
    assert "all is well" in ran.out


def test_callers_of_a_deployed_function_go_over_to_the_new_version(platform: Platform, program: Program) -> None:
    def deploy(number: int) -> None:
        path = program(SERVICE.replace("VERSION", str(number)), "service.py")
        platform.modal("deploy", path).succeeded()

    deploy(1)
    try:
        user = program(USER, "user.py")
        with platform.background("python", user) as running:
            running.wait_for("line")
            deploy(2)
            running.wait_for("done")
            ended = running.end().succeeded()
        assert [line for line in ended.out.splitlines() if "version" in line] == ["version 1", "version 2"]
    finally:
        platform.modal("app", "stop", "versions").succeeded()
