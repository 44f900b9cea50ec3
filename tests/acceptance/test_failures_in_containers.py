"""However a container ends, its caller gets the reason within moments, and never a hang."""

from __future__ import annotations

import time

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e


def run_body(platform: Platform, program: Program, body: str, options: str = "") -> tuple[str, float]:
    """Call a function with this body remotely; return what the caller caught, and after how many seconds."""
    path = program(
        f"""
        import time
        import modal
        app = modal.App("ends")

        @app.function()
        def warm():
            return 1

        @app.function({options})
        def end():
            import ctypes, os, signal, sys, time
            {body}

        @app.local_entrypoint()
        def main():
            started = time.monotonic()
            try:
                print("returned", end.remote())
            except Exception as error:
                print(f"{{type(error).__module__}}.{{type(error).__name__}}: {{error}}")
            print(time.monotonic() - started)
        """
    )
    lines = platform.modal("run", path).succeeded().out.splitlines()
    return "\n".join(lines[:-1]), float(lines[-1])


ENDS = {
    "exits by itself": ("os._exit(3)", "", ["exit", "3"]),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "", ["SIGKILL"]),
    "crashes": ("ctypes.string_at(0)", "", ["SIGSEGV"]),
    "runs out of memory": ("x = bytearray(512 * 1024 * 1024)", "memory=(64, 96)", ["memory", "96 MiB"]),
}


@pytest.mark.parametrize("how", list(ENDS))
def test_the_caller_learns_how_the_container_ended_when_it(how: str, platform: Platform, program: Program) -> None:
    body, options, words = ENDS[how]
    told, seconds = run_body(platform, program, body, options)
    assert told.startswith("modal.exception."), told
    for word in words:
        assert word in told, told
    assert seconds < 60, f"it took {seconds:.1f} s to say so"


def test_sys_exit_in_a_function_is_an_error_of_its_call(platform: Platform, program: Program) -> None:
    told, seconds = run_body(platform, program, "sys.exit('enough')")
    assert "enough" in told or "SystemExit" in told, told
    assert not told.startswith("returned")
    assert seconds < 5


def test_a_call_over_its_timeout_ends_with_the_timeout(platform: Platform, program: Program) -> None:
    told, seconds = run_body(platform, program, "time.sleep(100)", "timeout=2")
    assert told.startswith("modal.exception.FunctionTimeoutError: "), told
    assert "2" in told
    assert 2 <= seconds < 10


def test_a_dead_container_fails_its_own_input_only(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("one-dies")

        @app.function()
        def work(x):
            import os
            if x == 7:
                os._exit(1)
            return x

        @app.local_entrypoint()
        def main():
            results = list(work.map(range(20), return_exceptions=True))
            print([x for x in results if isinstance(x, int)])
            print([type(x).__name__ for x in results if not isinstance(x, int)])
        """
    )
    out = platform.modal("run", path).succeeded().out.splitlines()
    assert out[0] == str([x for x in range(20) if x != 7])
    assert out[1].count("'") == 2, "more than one input failed"


def test_a_slow_input_that_kills_its_container_fails_alone(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("one-dies-slowly")

        @app.function()
        def work(x):
            import os, time
            time.sleep(0.02)
            if x == 7:
                os._exit(1)
            return x

        @app.local_entrypoint()
        def main():
            results = list(work.map(range(20), return_exceptions=True))
            print([number for number, x in enumerate(results) if x != number], str(results[7]))
        """
    )
    assert platform.modal("run", path).succeeded().out == "[7] The container's process exited with status 1.\n"


def test_a_missing_module_in_the_image_is_named(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("missing")
        if not modal.is_local():
            import no_such_package_anywhere

        @app.function()
        def f():
            return 1
        """
    )
    started = time.monotonic()
    ran = platform.modal("run", f"{path}::f").shows_no_frame_of_ours()
    assert ran.code == 1
    assert "No module named 'no_such_package_anywhere'" in ran.err
    assert "import no_such_package_anywhere" in ran.err, "the line of the user's file is not shown"
    assert time.monotonic() - started < 20


def test_code_that_fails_at_import_fails_the_call_with_its_traceback(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("import-error")

        def setup():
            return {}["setting"]

        if not modal.is_local():
            setup()

        @app.function()
        def f():
            return 1

        @app.local_entrypoint()
        def main():
            f.remote()
        """
    )
    ran = platform.modal("run", f"{path}::main").shows_no_frame_of_ours()
    assert ran.code == 1
    assert "KeyError: 'setting'" in ran.err
    assert 'return {}["setting"]' in ran.err


def test_an_exception_shows_local_and_remote_frames_with_its_cause(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("exceptions")

        class Overdrawn(Exception):
            def __init__(self, account, amount):
                super().__init__(f"{account} lacks {amount}")
                self.amount = amount

        def look_up(account):
            return {}[account]

        @app.function()
        def pay(account):
            try:
                look_up(account)
            except KeyError as error:
                raise Overdrawn(account, 12) from error

        @app.local_entrypoint()
        def main():
            begin("alice")

        def begin(account):
            pay.remote(account)

        @app.local_entrypoint()
        def caught():
            try:
                pay.remote("bob")
            except Overdrawn as error:
                print(error.amount, repr(error.__cause__))
        """
    )
    ran = platform.modal("run", f"{path}::main")
    ran.failed_with_traceback("KeyError: 'alice'", "direct cause", "Overdrawn: alice lacks 12")
    for line in (
        "return {}[account]",
        "raise Overdrawn(account, 12) from error",
        "pay.remote(account)",
        'begin("alice")',
    ):
        assert line in ran.err, f"no frame with {line!r}\n{ran}"
    assert ran.err.index("pay.remote(account)") < ran.err.index("raise Overdrawn(account, 12) from error")
    assert len(ran.err.splitlines()) < 40, f"not short\n{ran}"
    assert platform.modal("run", f"{path}::caught").succeeded().out == "12 KeyError('bob')\n"


def test_a_function_named_on_the_command_line_fails_with_its_traceback(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("direct")

        @app.function()
        def divide(x: int = 0):
            return 1 / x
        """
    )
    platform.modal("run", path).failed_with_traceback("return 1 / x", "ZeroDivisionError: division by zero")


def test_a_result_that_cannot_be_pickled_is_an_error_that_names_its_type(platform: Platform, program: Program) -> None:
    told, _ = run_body(platform, program, "import threading; return threading.Lock()")
    assert "lock" in told
    assert "pickle" in told
