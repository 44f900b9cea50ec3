"""The runner with several inputs side by side: threads for sync functions, tasks for async ones."""

from __future__ import annotations

import signal
import traceback

import pytest
from fake_agent import Agent

from modal._wire.messages.call import Status

IDS = "from modal._runtime_context import current_input_id, current_function_call_id\nimport asyncio, os, time\n"
#: waits until as many inputs run as `n` says
MEET_THREADS = IDS + (
    "import threading\nbarrier = threading.Barrier(3, timeout=20)\n"
    "def f(x):\n    barrier.wait(); return x, current_input_id(), current_function_call_id()"
)
MEET_TASKS = IDS + (
    "waiting = []\n"
    "async def f(x):\n    waiting.append(x)\n"
    "    while len(waiting) < 3: await asyncio.sleep(0.001)\n"
    "    return x, current_input_id(), current_function_call_id()"
)
SLOW_THREAD = IDS + (
    "def f(wait=True):\n    if not wait: return 'fine'\n"
    "    open('begun', 'w').close()\n"
    "    try:\n        while True: time.sleep(0.01)\n"
    "    except BaseException as e: print(type(e).__name__); raise"
)
SLOW_TASK = IDS + (
    "async def f(wait=True):\n    if not wait: return 'fine'\n"
    "    open('begun', 'w').close()\n"
    "    try: await asyncio.sleep(60)\n"
    "    except BaseException as e: print(type(e).__name__); raise"
)
BOTH = pytest.mark.parametrize("script", [SLOW_THREAD, SLOW_TASK], ids=["threads", "tasks"])


@pytest.mark.parametrize("script", [MEET_THREADS, MEET_TASKS], ids=["threads", "tasks"])
def test_inputs_run_side_by_side_and_know_who_they_are(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", concurrency=3).push(("a", (1,)), ("b", (2,)), ("c", (3,)))
        values = [agent.output(name)[1] for name in ("a", "b", "c")]
        assert values == [(1, "a", "fc-a"), (2, "b", "fc-b"), (3, "c", "fc-c")]


@BOTH
def test_no_more_inputs_run_than_allowed(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", concurrency=2).push(("a", ()), ("b", ()), ("c", (False,)))
        agent.wait_for_file("begun")
        agent.cancel("c")
        assert agent.output("c")[0].status is Status.TERMINATED
        assert set(agent.outputs) == {"c"}


@BOTH
def test_cancel_interrupts_one_input_only(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", concurrency=2).push(("a", ()))
        agent.wait_for_file("begun")
        agent.cancel("a")
        assert agent.output("a")[0].status is Status.TERMINATED
        assert agent.call(False)[1] == "fine"
        assert agent.stdout_line() in ("InputCancellation\n", "CancelledError\n")


@BOTH
def test_a_timeout_interrupts_the_input_and_the_container_lives_on(script: str) -> None:
    with Agent(script) as agent:
        record, _ = agent.ready("f", concurrency=2, timeout=0.2).call()
        assert record.status is Status.TIMEOUT
        assert agent.call(False)[1] == "fine"


@BOTH
@pytest.mark.parametrize("how", ["stop", "SIGTERM", "SIGINT"])
def test_stop_interrupts_returns_and_exits_zero(script: str, how: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", concurrency=2).push(("a", ()), ("b", ()), ("c", ()))
        agent.wait_for_file("begun")
        agent.push(("d", ()))
        agent.stop() if how == "stop" else agent.signal(signal.Signals[how])
        while not agent.returned:
            agent.pump()
        assert {"b", "c", "d"} >= set(agent.returned)  # "b" too, when its thread had not begun
        assert agent.wait()[0] == 0


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_an_idle_async_container_stops_at_once(concurrency: int, how: str) -> None:
    with Agent("async def f(): pass") as agent:
        agent.ready("f", concurrency=concurrency)
        agent.stop() if how == "stop" else agent.signal(signal.SIGTERM)
        assert agent.wait()[0] == 0


@BOTH
def test_the_runner_ends_with_its_agent(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", concurrency=2).push(("a", ()))
        agent.wait_for_file("begun")
        agent.hang_up()
        assert agent.wait()[0] == 70


def test_an_async_function_keeps_one_event_loop() -> None:
    script = IDS + "loops = set()\nasync def f():\n    loops.add(asyncio.get_running_loop()); return len(loops)"
    with Agent(script) as agent:
        agent.ready("f")
        assert [agent.call()[1] for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("definition", ["async def f(x):", "def f(x):"])
def test_exceptions_show_the_users_lines_only(definition: str, concurrency: int) -> None:
    with Agent(f"{definition}\n    raise ValueError(x)") as agent:
        record, exc = agent.ready("f", concurrency=concurrency).call("odd")
        assert record.status is Status.FAILURE
        text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        assert "raise ValueError(x)" in text
        assert "modal/_" not in text


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("definition", ["async def f():", "def f():"])
@pytest.mark.parametrize(
    "body", ["raise SystemExit(3)", "raise KeyboardInterrupt", "import threading; return threading.Lock()"]
)
def test_whatever_user_code_does_the_next_input_runs(definition: str, concurrency: int, body: str) -> None:
    with Agent(f"bad = [1]\n{definition}\n    if not bad: return 'fine'\n    bad.pop()\n    {body}") as agent:
        assert agent.ready("f", concurrency=concurrency).call()[0].status is Status.FAILURE
        assert agent.call()[1] == "fine"


def test_a_task_that_cancels_itself_fails() -> None:
    with Agent("import asyncio\nasync def f(): raise asyncio.CancelledError") as agent:
        record, exc = agent.ready("f").call()
        assert record.status is Status.FAILURE
        assert type(exc).__name__ in ("ExecutionError", "CancelledError")


@pytest.mark.parametrize(
    ("script", "concurrency"),
    [
        ("async def f(n):\n    for i in range(n): yield i\n    open('ended', 'w')", 1),
        ("async def f(n):\n    for i in range(n): yield i\n    open('ended', 'w')", 4),
        ("def f(n):\n    for i in range(n): yield i\n    open('ended', 'w')", 4),
    ],
)
def test_generators_stay_within_their_window(script: str, concurrency: int) -> None:
    with Agent(script) as agent:
        agent.ready("f", is_generator=True, concurrency=concurrency).push(("a", (200,)))
        while len(agent.yielded.get("a", ())) < 64:
            agent.pump()
        assert not (agent.directory / "root" / "ended").exists()
        agent.credit("a", 1000)
        assert agent.output("a")[0].status is Status.SUCCESS
        assert agent.yielded["a"] == list(range(200))


@pytest.mark.parametrize("definition", ["async def f():", "def f():"])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_generator_that_waits_for_its_consumer_can_be_interrupted(definition: str, how: str) -> None:
    script = f"{definition}\n    try:\n        while True: yield 1\n    finally: print('closed')"
    with Agent(script) as agent:
        agent.ready("f", is_generator=True, concurrency=2, timeout=0.3 if how == "timeout" else 60).push(("a", ()))
        while len(agent.yielded.get("a", ())) < 64:
            agent.pump()
        if how == "cancel":
            agent.cancel("a")
        record, _ = agent.output("a")
        assert record.status is (Status.TIMEOUT if how == "timeout" else Status.TERMINATED)
        assert agent.stdout_line() == "closed\n"


@pytest.mark.parametrize("definition", ["async def f():", "def f():"])
def test_a_forked_child_does_not_answer_for_its_parent(definition: str) -> None:
    script = (
        f"import os\n{definition}\n    pid = os.fork()\n    if pid == 0: return 'child'\n"
        "    os.waitpid(pid, 0)\n    return 'parent'"
    )
    with Agent(script) as agent:
        assert agent.ready("f", concurrency=2).call()[1] == "parent"
        assert agent.call()[1] == "parent"
        assert set(agent.outputs) == {"in-0", "in-1"}
        agent.stop()
        assert agent.wait() == (0, "", "")


def test_many_concurrent_inputs_all_end() -> None:
    for definition in ("def f(x):", "async def f(x):"):
        with Agent(f"{definition} return x * 2") as agent:
            agent.ready("f", concurrency=8).push(*((f"in-{n}", (n,)) for n in range(300)))
            assert [agent.output(f"in-{n}")[1] for n in range(300)] == [2 * n for n in range(300)]
