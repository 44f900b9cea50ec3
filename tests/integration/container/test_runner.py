"""The runner as a real process, with one input at a time in its main thread."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from fake_agent import ENTRY, Agent

from modal._serialization import deserialize_failure, serialize_function
from modal._wire.messages.call import Status
from modal._wire.messages.function import SourceKind
from modal._wire.messages.runner import RunInput, RunInputs, Stop
from modal.exception import ExecutionError, SerializationError


def text_of(exc: BaseException) -> str:
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def test_it_says_who_it_is_and_runs_inputs() -> None:
    with Agent("def square(x): return x * x") as agent:
        assert agent.hello.container_id == "ta-1"
        assert agent.hello.python == ".".join(map(str, sys.version_info[:3]))
        assert agent.hello.pid == agent.process.pid
        agent.ready("square")
        record, value = agent.call(7)
        assert (record.status, value) == (Status.SUCCESS, 49)
        assert 0 <= record.seconds < 5


def test_many_inputs_at_once_all_end_in_order() -> None:
    with Agent("def f(x): return x + 1") as agent:
        agent.ready("f").push(*((f"in-{number}", (number,)) for number in range(500)))
        agent.output("in-499")
        assert list(agent.outputs) == [f"in-{number}" for number in range(500)]


def test_the_script_is_found_under_its_name_and_does_not_see_itself_as_main() -> None:
    script = (
        "import sys, pickle\n"
        "if __name__ == '__main__': raise SystemExit('ran as main')\n"
        "class P: pass\n"
        "def f():\n"
        "    import app\n"
        "    same = pickle.loads(b'\\x80\\x04c__main__\\nP\\n.')\n"
        "    return __name__, __file__, app.P is P, same is P, sys.path[0]"
    )
    with Agent(script) as agent:
        name, file, *same, sdk = agent.ready("f").call()[1]
        assert (name, file, same) == ("app", str(agent.script), [True, True])
        assert Path(sdk, "modal", "_container").is_dir()


def test_a_module_is_imported_and_a_wrapper_is_unwrapped() -> None:
    script = (
        "class Function:\n    def __init__(self, f): self.f = f\n    def get_raw_f(self): return self.f\n"
        "@Function\ndef f(): return 'raw'\n"
        "class Model:\n    @Function\n    def predict(): return 'method'"
    )
    with Agent(script) as agent:
        assert agent.ready("f", kind=SourceKind.MODULE).call()[1] == "raw"
    with Agent(script) as agent:
        assert agent.ready("Model.predict", kind=SourceKind.MODULE).call()[1] == "method"


def test_a_serialized_function_needs_no_file() -> None:
    base = 40
    with Agent() as agent:
        agent.script.unlink()
        agent.ready("f", kind=SourceKind.SERIALIZED, body=serialize_function(lambda x: base + x), python="3.11")
        assert agent.call(2)[1] == 42


def test_a_serialized_function_of_another_python_names_both() -> None:
    with Agent() as agent:
        body = bytes((1, 3, 8)) + b"\x80\x05cno_such\nx\n."
        failed, _ = agent.start("f", kind=SourceKind.SERIALIZED, body=body, python="3.8")
        assert failed.error.type == "DeserializationError"
        assert "Python 3.8" in failed.error.message
        assert f"Python 3.{sys.version_info[1]}" in failed.error.message


@pytest.mark.parametrize(
    ("script", "name", "kind", "says"),
    [
        ("def f(:", "f", SyntaxError, "failed to import"),
        ("import no_such_thing\ndef f(): pass", "f", ModuleNotFoundError, "no_such_thing"),
        ("def g():\n    raise ValueError('at import')\ng()", "f", ValueError, "at import"),
        ("raise SystemExit(3)", "f", None, "sys.exit(3)"),
        ("x = 1", "f", None, "has no 'f'"),
        ("f = 3", "f", None, "is a int"),
        ("def f(): pass", "f.<locals>.g", None, "inside another function"),
    ],
)
def test_what_cannot_be_loaded_is_reported_and_the_runner_exits(
    script: str, name: str, kind: type[BaseException] | None, says: str
) -> None:
    with Agent(script) as agent:
        failed, payload = agent.start(name)
        assert type(failed).__name__ == "StartFailed"
        assert says in failed.error.message
        assert "\n" not in failed.error.message
        if kind is None:
            assert payload == b""
        else:
            exc = deserialize_failure(payload)
            assert type(exc) is kind
            assert "_container" not in text_of(exc)
        assert agent.wait()[0] == 71


def test_a_failing_import_shows_the_users_lines() -> None:
    with Agent("def g():\n    raise ValueError('at import')\ng()") as agent:
        _, payload = agent.start("f")
        text = text_of(deserialize_failure(payload))
        assert f'File "<ta-1>:{agent.script}", line 3, in <module>\n    g()\n' in text
        assert "line 2, in g\n    raise ValueError('at import')" in text


def test_a_local_module_that_was_not_sent_is_named_with_the_call_that_sends_it() -> None:
    with Agent("import helpers.deep") as agent:
        failed, payload = agent.start("f", local_modules=("helpers",))
        hint = 'image.add_local_python_source("helpers")'
        assert hint in failed.error.message
        exc = deserialize_failure(payload)
        assert isinstance(exc, ModuleNotFoundError)
        assert hint in str(exc)


def test_a_script_that_was_not_sent_is_named() -> None:
    with Agent() as agent:
        agent.script.unlink()
        failed, _ = agent.start("f")
        assert str(agent.script) in failed.error.message


def test_an_exception_arrives_with_class_cause_and_lines() -> None:
    script = (
        "def f(x):\n"
        "    try:\n        return {}[x]\n"
        "    except KeyError as error:\n        raise ValueError('no ' + x) from error\n"
    )
    with Agent(script) as agent:
        record, exc = agent.ready("f").call("key")
        assert record.status is Status.FAILURE
        text = text_of(exc)
        assert text.index("return {}[x]") < text.index("direct cause") < text.index("raise ValueError('no ' + x)")
        assert "_container" not in text
        assert agent.call("again")[0].status is Status.FAILURE


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("raise SystemExit(4)", ExecutionError, r"sys.exit(4)"),
        ("import sys; sys.exit()", ExecutionError, r"sys.exit()"),
        ("raise KeyboardInterrupt", ExecutionError, "raised KeyboardInterrupt"),
        ("raise GeneratorExit", ExecutionError, "raised GeneratorExit"),
        ("raise BaseException('base')", BaseException, "base"),
        ("import _thread; return _thread.allocate_lock()", SerializationError, "lock"),
        ("return f()", RecursionError, "recursion"),
        ("f(1)", TypeError, "argument"),
    ],
)
def test_whatever_user_code_does_the_next_input_runs(body: str, kind: type[BaseException], says: str) -> None:
    with Agent(f"def f(fail=True):\n    if not fail: return 'fine'\n    {body}") as agent:
        if says == "argument":
            agent.script.write_text("def f(fail=True):\n    if not fail: return 'fine'\n    f(1, 2)")
        record, exc = agent.ready("f").call()
        assert record.status is Status.FAILURE
        assert type(exc) is kind
        assert says in str(exc)
        assert agent.call(False)[1] == "fine"


def test_a_scheduled_run_has_no_arguments_and_its_failure_is_printed() -> None:
    with Agent("def f(x=5):\n    if x: return 10 / (x - 5)\n    return x") as agent:
        agent.ready("f")
        agent.send(RunInputs([RunInput("in-1", "fc-1", 0)]))
        record, exc = agent.output("in-1")
        assert (record.status, type(exc)) == (Status.FAILURE, ZeroDivisionError)
        agent.call(5)  # who waits for a result prints what it raises
        agent.send(Stop(0.0))
        _, printed = agent.process.communicate(timeout=20)
        text = printed.decode()
        assert text.count("ZeroDivisionError: division by zero") == 1
        assert "return 10 / (x - 5)" in text
        assert "_container" not in text


def test_arguments_that_cannot_be_unpickled_fail_only_their_input() -> None:
    with Agent("def f(x): return x") as agent:
        agent.ready("f")
        agent.send(RunInputs([RunInput("bad", "fc", 7)]), b"garbage")
        record, exc = agent.output("bad")
        assert record.status is Status.FAILURE
        assert type(exc).__name__ == "DeserializationError"
        assert agent.call(1)[1] == 1


def test_ids_and_context_are_right_in_user_code() -> None:
    script = (
        "from modal._runtime_context import *\n"
        "from modal import _runtime_context as c\n"
        "def f():\n"
        "    k = c.container_context()\n"
        "    ids = [c.current_input_id(), c.current_function_call_id()]\n"
        "    return [*ids, c.is_local(), k.app_name, k.objects, k.function_id]"
    )
    with Agent(script) as agent:
        _, value = agent.ready("f").call(name="in-9")
        assert value == ["in-9", "fc-in-9", False, "shop", {"other": "fu-2"}, "fu-1"]


# --- timeouts, cancels, stops


SLOW = (
    "import time\n"
    "def f(wait=True):\n"
    "    if not wait: return 'fine'\n"
    "    open('begun', 'w').close()\n"
    "    try:\n        time.sleep(60)\n"
    "    except BaseException as e:\n        print(type(e).__name__, flush=True); raise\n"
)


def test_a_timeout_interrupts_the_input_and_the_container_lives_on() -> None:
    with Agent(SLOW) as agent:
        record, _ = agent.ready("f", timeout=0.2).call()
        assert record.status is Status.TIMEOUT
        assert record.error is not None
        assert record.error.type == "FunctionTimeoutError"
        assert "0.2 seconds" in record.error.message
        assert 0.2 <= record.seconds < 2
        assert agent.call(False)[1] == "fine"


def test_a_busy_loop_times_out_too() -> None:
    with Agent("def f():\n    while True: pass") as agent:
        assert agent.ready("f", timeout=0.2).call()[0].status is Status.TIMEOUT


def test_cancel_raises_input_cancellation_and_leaves_others_alone() -> None:
    with Agent(SLOW) as agent:
        agent.ready("f").push(("a", ()), ("b", ()), ("c", (False,)))
        agent.wait_for_file("begun")
        agent.cancel("b", "a")
        assert agent.output("b")[0].status is Status.TERMINATED
        assert agent.output("a")[0].status is Status.TERMINATED
        assert agent.output("c")[1] == "fine"
        assert agent.stdout_line() == "InputCancellation\n"


def test_recall_returns_inputs_while_one_runs() -> None:
    with Agent(SLOW) as agent:
        agent.ready("f").push(("a", ()), ("b", ()), ("c", ()))
        agent.wait_for_file("begun")
        agent.recall(1)
        while not agent.returned:
            agent.pump()
        assert agent.returned == ["c"]


def test_an_output_does_not_wait_for_a_longer_input_behind_it() -> None:
    with Agent(SLOW) as agent:
        agent.ready("f").push(("a", (False,)), ("b", ()))
        assert agent.output("a")[1] == "fine"
        assert "b" not in agent.outputs


@pytest.mark.parametrize("how", ["stop", "SIGTERM", "SIGINT"])
def test_stop_and_signals_interrupt_return_and_exit_zero(how: str) -> None:
    with Agent("import atexit; atexit.register(print, 'bye')\n" + SLOW) as agent:
        agent.ready("f").push(("a", ()), ("b", ()))
        agent.wait_for_file("begun")
        agent.stop() if how == "stop" else agent.signal(signal.Signals[how])
        assert agent.output("a")[0].status is Status.INTERNAL_FAILURE
        assert agent.returned == ["b"]
        assert agent.is_leaving == (how != "stop")
        code, out, err = agent.wait()
        assert (code, out) == (0, "KeyboardInterrupt\nbye\n"), err


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_an_idle_container_stops_at_once(how: str) -> None:
    with Agent("def f(): pass") as agent:
        agent.ready("f")
        agent.stop() if how == "stop" else agent.signal(signal.SIGTERM)
        assert agent.wait()[0] == 0


def test_stop_during_import_ends_the_process() -> None:
    with Agent("import time; open('begun', 'w').close(); time.sleep(60)") as agent:
        failures: list[type[BaseException]] = []

        def start() -> None:
            try:
                agent.start("f")
            except EOFError:
                failures.append(EOFError)

        thread = threading.Thread(target=start)
        thread.start()
        agent.wait_for_file("begun")
        agent.stop()
        assert agent.wait()[0] == 0
        thread.join()
        assert failures == [EOFError]


def test_code_that_ignores_stop_is_cut_off_within_the_grace() -> None:
    script = (
        "import time\ndef f():\n    open('begun', 'w').close()\n"
        "    while True:\n        try: time.sleep(60)\n        except BaseException: pass"
    )
    with Agent(script) as agent:
        agent.ready("f").push(("a", ()))
        agent.wait_for_file("begun")
        agent.stop(grace=0.5)
        assert agent.wait()[0] == 0


def test_threads_left_running_do_not_hold_the_process() -> None:
    script = "import threading, time\ndef f(): threading.Thread(target=time.sleep, args=(60,)).start()"
    with Agent(script) as agent:
        assert agent.ready("f").call()[0].status is Status.SUCCESS
        agent.stop()
        assert agent.wait()[0] == 0


@pytest.mark.parametrize("busy", [True, False])
def test_the_runner_ends_with_its_agent(busy: bool) -> None:
    with Agent(SLOW) as agent:
        agent.ready("f")
        if busy:
            agent.push(("a", ()))
            agent.wait_for_file("begun")
        agent.hang_up()
        assert agent.wait()[0] == 70


# --- what goes wrong in processes


def test_output_is_not_lost_when_the_process_ends_in_the_middle() -> None:
    script = (
        "import os, sys\ndef f():\n    print('whole'); print('part', end='')\n"
        "    print('err', end='', file=sys.stderr); os._exit(5)"
    )
    with Agent(script) as agent:
        agent.ready("f").push(("a", ()))
        assert agent.wait() == (5, "whole\npart", "err")


def test_a_crash_prints_where_it_happened() -> None:
    with Agent("import ctypes\ndef f():\n    print('before', end='')\n    ctypes.string_at(0)") as agent:
        agent.ready("f").push(("a", ()))
        code, out, err = agent.wait()
        assert code == -signal.SIGSEGV
        assert out == "before"
        assert "Segmentation fault" in err
        assert "app.py" in err


def test_partial_lines_appear_at_once() -> None:
    with Agent("import sys\ndef f():\n    print('x', end='')\n    return sys.stdout.encoding") as agent:
        assert agent.ready("f").call()[1] == "utf-8"
        assert agent.process.stdout is not None
        assert agent.process.stdout.read(1) == b"x"


def test_logging_and_odd_characters_are_printed() -> None:
    with Agent(
        "import logging\ndef f():\n    logging.warning('warm'); print('é\\udc80')", env={"LC_ALL": "C"}
    ) as agent:
        assert agent.ready("f").call()[0].status is Status.SUCCESS
        agent.stop()
        assert agent.wait() == (0, "é\\udc80\n", "WARNING:root:warm\n")


def test_closed_descriptors_and_a_deleted_directory_do_not_matter() -> None:
    script = (
        "import os\nos.mkdir('gone'); os.chdir('gone')\n"
        "def f():\n    os.close(1); os.close(2); os.rmdir('../gone')\n    return 1"
    )
    with Agent(script) as agent:
        assert agent.ready("f").call()[1] == 1
        agent.stop()
        assert agent.wait()[0] == 0


@pytest.mark.parametrize("ending", ["return 'child'", "raise ValueError('child')", "import sys; sys.exit(0)"])
def test_a_forked_child_does_not_answer_for_its_parent(ending: str) -> None:
    script = (
        "import os\n"
        "def f():\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        f"        {ending}\n"
        "    os.waitpid(pid, 0)\n"
        "    return 'parent'"
    )
    with Agent(script) as agent:
        assert agent.ready("f").call()[1] == "parent"
        assert agent.call()[1] == "parent"
        assert set(agent.outputs) == {"in-0", "in-1"}
        agent.stop()
        code, _, err = agent.wait()
        assert code == 0
        assert err == "" or "ValueError: child" in err


def test_multiprocessing_works_with_functions_of_the_script() -> None:
    script = (
        "import multiprocessing\ndef double(x): return 2 * x\n"
        "def f(method):\n"
        "    with multiprocessing.get_context(method).Pool(2) as pool: return pool.map(double, [1, 2])"
    )
    with Agent(script) as agent:
        agent.ready("f")
        assert agent.call("fork")[1] == [2, 4]
        assert agent.call("spawn")[1] == [2, 4]


def test_a_child_left_alive_does_not_hold_the_connection() -> None:
    script = (
        "import os, time\ndef f():\n"
        "    if os.fork() == 0:\n        os.close(1); os.close(2); time.sleep(5); os._exit(0)\n"
        "    os._exit(3)"
    )
    with Agent(script) as agent:
        agent.ready("f").push(("a", ()))
        with pytest.raises(EOFError):
            agent.receive()
        assert agent.wait()[0] == 3


def test_an_async_function_behind_a_plain_decorator_is_run() -> None:
    script = (
        "import functools\n"
        "def plain(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n"
        "@plain\nasync def f(x): return x + 1"
    )
    with Agent(script) as agent:
        assert agent.ready("f").call(1)[1] == 2


# --- generators


def test_a_generator_yields_and_ends() -> None:
    with Agent("def f(n):\n    for i in range(n): yield i\n    if n == 3: raise ValueError('end')") as agent:
        agent.ready("f", is_generator=True)
        assert agent.call(5, name="a")[0].status is Status.SUCCESS
        assert agent.yielded["a"] == [0, 1, 2, 3, 4]
        record, exc = agent.call(3, name="b")
        assert (record.status, str(exc), agent.yielded["b"]) == (Status.FAILURE, "end", [0, 1, 2])


def test_a_generator_stays_within_its_window() -> None:
    with Agent("def f():\n    for i in range(200): yield i\n    open('ended', 'w')") as agent:
        agent.ready("f", is_generator=True).push(("a", ()))
        while len(agent.yielded.get("a", ())) < 64:
            agent.pump()
        agent.credit("a", 3)
        while len(agent.yielded["a"]) < 67:
            agent.pump()
        assert not (agent.directory / "root" / "ended").exists()
        agent.credit("a", 1000)
        assert agent.output("a")[0].status is Status.SUCCESS
        assert agent.yielded["a"] == list(range(200))


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
def test_a_generator_that_waits_for_its_consumer_can_be_interrupted(how: str) -> None:
    script = (
        "def f():\n    try:\n        while True: yield 1\n    except BaseException as e: print(type(e).__name__); raise"
    )
    with Agent(script) as agent:
        agent.ready("f", is_generator=True, timeout=0.3 if how == "timeout" else 60).push(("a", ()))
        while len(agent.yielded.get("a", ())) < 64:
            agent.pump()
        if how == "cancel":
            agent.cancel("a")
        elif how == "stop":
            agent.stop()
        record, _ = agent.output("a")
        expected = {"timeout": Status.TIMEOUT, "cancel": Status.TERMINATED, "stop": Status.INTERNAL_FAILURE}
        assert record.status is expected[how]
        expected = {"cancel": "InputCancellation", "timeout": "TimeoutReached", "stop": "KeyboardInterrupt"}[how]
        assert agent.stdout_line() == expected + "\n"


# --- other Pythons, and what is imported


def other_pythons() -> list[str]:
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    return [str(path) for path in found if path.parts[-3].split(".")[1] in ("9", "10", "12", "13")]


@pytest.mark.parametrize("python", other_pythons())
@pytest.mark.parametrize("definition", ["def f(x):", "async def f(x):"])
def test_it_runs_on_every_python(python: str, definition: str) -> None:
    with Agent(definition + "\n    if x < 0: raise ValueError(x)\n    return x + 1", python=python) as agent:
        agent.ready("f")
        assert agent.call(1)[1] == 2
        record, exc = agent.call(-1)
        assert (record.status, type(exc)) == (Status.FAILURE, ValueError)
        assert "raise ValueError(x)" in text_of(exc)
        agent.stop()
        assert agent.wait()[0] == 0


@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_the_functions_of_a_real_app_are_found_on_every_python(python: str) -> None:
    script = (
        "import modal\napp = modal.App()\n"
        "@app.function()\ndef f(x):\n"
        "    return x, modal.current_input_id(), modal.current_function_call_id(), modal.is_local()"
    )
    with Agent(script, python=python) as agent:
        assert agent.ready("f").call(1, name="in-1")[1] == (1, "in-1", "fc-in-1", False)


def test_a_plain_function_imports_nothing_heavy() -> None:
    script = (
        "import sys\ndef f():\n"
        "    heavy = {'asyncio', 'ssl', 'cloudpickle', 'dataclasses', 'logging', 'inspect', 'random'}\n"
        "    return sorted(heavy & set(sys.modules))"
    )
    with Agent(script, env={"PYTHONNOUSERSITE": "1"}) as agent:
        assert agent.ready("f").call()[1] == []


def test_without_an_agent_it_says_so() -> None:
    env = {"INTERMODAL_SOCKET": "/nonexistent/agent.sock"}
    result = subprocess.run([sys.executable, str(ENTRY)], env=env, capture_output=True, text=True)
    assert result.returncode == 70
    assert "/nonexistent/agent.sock" in result.stderr
    assert "Traceback" not in result.stderr
