"""The runner with a batched function."""

from __future__ import annotations

import signal
import time

import pytest
from fake_agent import Agent

from modal._wire.messages.call import Status

DOUBLE = "def f(xs):\n    return [(x * 2, len(xs)) for x in xs]"
DOUBLE_ASYNC = "async def f(xs):\n    return [(x * 2, len(xs)) for x in xs]"
SLOW = (
    "import time\ndef f(xs):\n    if not xs[0]: return xs\n    open('begun', 'w').close()\n"
    "    try:\n        while True: time.sleep(0.01)\n    except BaseException as e: print(type(e).__name__); raise"
)
SLOW_ASYNC = (
    "import asyncio\nasync def f(xs):\n    if not xs[0]: return xs\n    open('begun', 'w').close()\n"
    "    try: await asyncio.sleep(60)\n    except BaseException as e: print(type(e).__name__); raise"
)
BOTH = pytest.mark.parametrize("script", [DOUBLE, DOUBLE_ASYNC], ids=["sync", "async"])
SLOW_BOTH = pytest.mark.parametrize("script", [SLOW, SLOW_ASYNC], ids=["sync", "async"])


@BOTH
def test_full_batches_run_at_once_and_the_rest_after_its_wait(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(2, 300))
        began = time.monotonic()
        agent.push(("a", (1,)), ("b", (2,)), ("c", (3,)))
        assert [agent.output(name)[1] for name in "ab"] == [(2, 2), (4, 2)]
        assert agent.output("c")[1] == (6, 1)
        assert time.monotonic() - began >= 0.3


@BOTH
def test_an_input_that_comes_in_time_joins_the_batch(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(8, 500)).push(("a", (1,)))
        time.sleep(0.05)
        agent.push(("b", (2,)))
        assert [agent.output(name)[1] for name in "ab"] == [(2, 2), (4, 2)]


@BOTH
def test_what_waits_for_its_batch_is_returned_when_the_container_stops(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(8, 60_000)).push(("a", (1,)))
        time.sleep(0.05)
        agent.stop()
        while not agent.returned:
            agent.pump()
        assert agent.returned == ["a"]
        assert agent.wait()[0] == 0


@SLOW_BOTH
def test_a_batch_is_interrupted_when_all_its_inputs_are_cancelled(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(2, 0)).push(("a", (1,)), ("b", (1,)))
        agent.wait_for_file("begun")
        agent.cancel("a")
        agent.cancel("b")
        assert {agent.output(name)[0].status for name in "ab"} == {Status.TERMINATED}
        assert agent.stdout_line() in ("InputCancellation\n", "CancelledError\n")
        assert agent.call(0)[1] == 0


@SLOW_BOTH
def test_a_batch_times_out_for_each_input(script: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(2, 0), timeout=0.2).push(("a", (1,)), ("b", (1,)))
        assert {agent.output(name)[0].status for name in "ab"} == {Status.TIMEOUT}
        assert agent.call(0)[1] == 0


@SLOW_BOTH
@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_a_stop_interrupts_the_batch_and_blames_none_of_its_inputs(script: str, how: str) -> None:
    with Agent(script) as agent:
        agent.ready("f", batch=(2, 0)).push(("a", (1,)), ("b", (1,)))
        agent.wait_for_file("begun")
        agent.stop() if how == "stop" else agent.signal(signal.SIGTERM)
        assert {agent.output(name)[0].status for name in "ab"} == {Status.INTERNAL_FAILURE}
        assert agent.is_leaving == (how == "SIGTERM")
        assert agent.wait()[0] == 0


@pytest.mark.parametrize("definition", ["def f(xs):", "async def f(xs):"])
@pytest.mark.parametrize(
    "body", ["raise SystemExit(3)", "raise KeyboardInterrupt", "import threading; return [threading.Lock()]"]
)
def test_whatever_user_code_does_the_next_batch_runs(definition: str, body: str) -> None:
    with Agent(f"bad = [1]\n{definition}\n    if not bad: return xs\n    bad.pop()\n    {body}") as agent:
        assert agent.ready("f", batch=(4, 0)).call(1)[0].status is Status.FAILURE
        assert agent.call(2)[1] == 2


@pytest.mark.parametrize("definition", ["def f(xs):", "async def f(xs):"])
def test_a_forked_child_does_not_answer_for_its_batch(definition: str) -> None:
    script = (
        f"import os\n{definition}\n    pid = os.fork()\n    if pid == 0: return ['child']\n"
        "    os.waitpid(pid, 0)\n    return ['parent']"
    )
    with Agent(script) as agent:
        assert agent.ready("f", batch=(4, 0)).call(1)[1] == "parent"
        agent.stop()
        assert agent.wait() == (0, "", "")


def test_a_sync_batched_function_may_return_an_awaitable() -> None:
    with Agent("async def g(xs): return xs\ndef f(xs): return g(xs)") as agent:
        assert agent.ready("f", batch=(4, 0)).call(5)[1] == 5


def test_the_ids_are_those_of_the_first_input() -> None:
    script = "from modal._runtime_context import current_input_id\ndef f(xs): return [current_input_id() for _ in xs]"
    with Agent(script) as agent:
        agent.ready("f", batch=(2, 0)).push(("a", (1,)), ("b", (2,)))
        assert [agent.output(name)[1] for name in "ab"] == ["a", "a"]


@pytest.mark.parametrize("script", [SLOW, SLOW_ASYNC], ids=["sync", "async"])
def test_code_that_ignores_a_signal_gets_the_grace_of_the_server(script: str) -> None:
    stubborn = script.replace("raise", "time.sleep(60)" if "async" not in script else "await asyncio.sleep(60)")
    with Agent(stubborn) as agent:
        agent.ready("f", batch=(1, 0), stop_grace=1.0).push(("a", (1,)))
        agent.wait_for_file("begun")
        began = time.monotonic()
        agent.signal(signal.SIGTERM)
        assert agent.wait()[0] == 0
        assert 0.5 < time.monotonic() - began < 30.0
