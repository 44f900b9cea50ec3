"""What programs do from inside containers, and how results come back."""

from __future__ import annotations

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e


def test_functions_call_map_and_spawn_each_other(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("nested")

        @app.function()
        def square(x):
            assert not modal.is_local()
            return x * x

        @app.function()
        def manager(n: int):
            call = square.spawn(9)
            return square.remote(n), list(square.map(range(n))), call.get(timeout=30)

        @app.local_entrypoint()
        def main():
            assert modal.is_local()
            print(manager.remote(4))
        """
    )
    assert platform.modal("run", path).succeeded().out == "(16, [0, 1, 4, 9], 81)\n"


def test_secrets_are_in_the_environment_of_their_function_alone(platform: Platform, program: Program) -> None:
    path = program(
        """
        import os
        import modal
        app = modal.App("secrets")
        word = modal.Secret.from_dict({"WORD": "swordfish", "EMPTY": ""})

        @app.function(secrets=[word])
        def knows():
            return os.environ.get("WORD"), os.environ.get("EMPTY")

        @app.function()
        def knows_not():
            return os.environ.get("WORD")

        @app.local_entrypoint()
        def main():
            print(knows.remote(), knows_not.remote())
        """
    )
    ran = platform.modal("run", path).succeeded()
    assert ran.out == "('swordfish', '') None\n"
    assert "swordfish" not in ran.err
    assert "swordfish" not in (platform.data_dir / "server.log").read_text()


def test_a_blocked_network_reaches_nothing_and_others_reach_the_world(platform: Platform, program: Program) -> None:
    path = program(
        """
        import os, socket
        import modal
        app = modal.App("network")

        def look():
            interfaces = sorted(os.listdir("/sys/class/net"))
            with open("/proc/net/route") as routes:
                has_default = any(line.split()[1] == "00000000" for line in routes.readlines()[1:])
            return interfaces, has_default

        @app.function(block_network=True)
        def alone():
            try:
                socket.create_connection(("1.1.1.1", 53), 3)
            except OSError as error:
                return look(), error.strerror
            return "connected"

        @app.function()
        def connected():
            return look()

        @app.local_entrypoint()
        def main():
            print(alone.remote())
            print(connected.remote())
        """
    )
    out = platform.modal("run", path).succeeded().out.splitlines()
    assert out == ["((['lo'], False), 'Network is unreachable')", "(['eth0', 'lo'], True)"]


def test_generators_yield_here_as_they_yield_there(platform: Platform, program: Program) -> None:
    path = program(
        """
        import time
        import modal
        app = modal.App("generators")

        @app.function()
        def count(n: int):
            for i in range(n):
                yield i, time.time()
                time.sleep(1.5)

        @app.local_entrypoint()
        def main():
            values = [(said, time.time()) for _, said in count.remote_gen(4)]
            (_, first_came), (last_said, _) = values[0], values[-1]
            print(len(values), first_came < last_said)
        """
    )
    assert platform.modal("run", f"{path}::main").succeeded().out == "4 True\n"
    named = platform.modal("run", f"{path}::count", "--n", 2).succeeded().out.splitlines()
    assert [line[:3] for line in named] == ["(0,", "(1,"]


def test_spawned_calls_are_fetched_later_and_gathered(platform: Platform, program: Program) -> None:
    path = program(
        """
        import time
        import modal
        from modal.functions import gather
        app = modal.App("spawn")

        @app.function()
        def slow(x):
            time.sleep(x)
            return x

        @app.local_entrypoint()
        def main():
            call = slow.spawn(1.5)
            try:
                call.get(timeout=0)
            except TimeoutError as error:
                print("not yet")
            print(call.get())
            print(modal.FunctionCall.from_id(call.object_id).get())
            print(gather(slow.spawn(0.2), slow.spawn(0.1)))
        """
    )
    assert platform.modal("run", path).succeeded().out == "not yet\n1.5\n1.5\n[0.2, 0.1]\n"


def test_an_async_entrypoint_awaits_calls_side_by_side(platform: Platform, program: Program) -> None:
    path = program(
        """
        import asyncio
        import modal
        app = modal.App("async")

        @app.function()
        async def double(x):
            await asyncio.sleep(0.01)
            return 2 * x

        @app.function()
        def letters():
            yield from "abc"

        @app.local_entrypoint()
        async def main():
            print(await double.remote.aio(2))
            print(await asyncio.gather(*(double.remote.aio(x) for x in range(5))))
            print([x async for x in double.map.aio(range(5))])
            print([x async for x in letters.remote_gen.aio()])
            call = await double.spawn.aio(21)
            print(await call.get.aio())
        """
    )
    out = platform.modal("run", path).succeeded().out.splitlines()
    assert out == ["4", "[0, 2, 4, 6, 8]", "[0, 2, 4, 6, 8]", "['a', 'b', 'c']", "42"]


def test_a_failing_input_is_retried_and_then_succeeds(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("retries")
        tries = 0

        @app.function(retries=modal.Retries(max_retries=3, initial_delay=0.1, backoff_coefficient=1.0))
        def third_time():
            global tries
            tries += 1
            print("try", tries)
            if tries < 3:
                raise RuntimeError("not yet")
            return tries

        @app.local_entrypoint()
        def main():
            print("result", third_time.remote())
        """
    )
    lines = platform.modal("run", path).succeeded().out.splitlines()
    # Output of containers and of the entrypoint come over different ways: only each one's own order is fixed.
    assert [line for line in lines if line.startswith("try")] == ["try 1", "try 2", "try 3"]
    assert "result 3" in lines


def test_a_map_gives_failures_back_when_asked_to(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("return-exceptions")

        @app.function()
        def invert(x):
            return 1 / x

        @app.local_entrypoint()
        def main():
            for result in invert.map([1, 0, 2], return_exceptions=True):
                print(type(result).__name__, result)

        @app.local_entrypoint()
        def strict():
            print(list(invert.map([1, 0, 2])))
        """
    )
    out = platform.modal("run", f"{path}::main").succeeded().out.splitlines()
    assert out == ["float 1.0", "ZeroDivisionError division by zero", "float 0.5"]
    ran = platform.modal("run", f"{path}::strict").failed_with_traceback("ZeroDivisionError: division by zero")
    assert "return 1 / x" in ran.err


def test_starmap_and_for_each_and_keyword_arguments(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("maps")

        @app.function()
        def add(a, b, c=0):
            return a + b + c

        @app.local_entrypoint()
        def main():
            print(list(add.starmap([(1, 2), (3, 4)], kwargs={"c": 100})))
            print(list(add.map([1, 2], [10, 20])))
            print(add.for_each([1], [2]))
        """
    )
    assert platform.modal("run", path).succeeded().out == "[103, 107]\n[11, 22]\nNone\n"


def test_large_arguments_and_results_arrive_whole(platform: Platform, program: Program) -> None:
    path = program(
        """
        import hashlib, os
        import modal
        app = modal.App("large")

        @app.function()
        def turn(data: bytes):
            print(hashlib.sha256(data).hexdigest())
            return data[::-1]

        @app.local_entrypoint()
        def main():
            data = os.urandom(5 * 1024 * 1024)
            print(hashlib.sha256(data).hexdigest())
            print(turn.remote(data) == data[::-1])
            print(all(one == data[::-1] for one in turn.map([data] * 3)))
        """
    )
    out = platform.modal("run", path).succeeded().out.splitlines()
    digests = [line for line in out if len(line) == 64]
    assert len(digests) == 5
    assert len(set(digests)) == 1
    assert [line for line in out if len(line) != 64] == ["True", "True"]


def test_nothing_printed_just_before_a_crash_is_lost(platform: Platform, program: Program) -> None:
    path = program(
        """
        import os, sys
        import modal
        app = modal.App("last-words")

        @app.function()
        def crash():
            for number in range(2000):
                print("line", number)
            print("an unfinished line", end="", flush=True)
            os.kill(os.getpid(), 9)

        @app.local_entrypoint()
        def main():
            try:
                crash.remote()
            except Exception as error:
                print()
                print("error:", error)
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "".join(f"line {number}\n" for number in range(2000)) in out
    assert "an unfinished line" in out


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_printed_here_and_there_at_once_stay_whole(platform: Platform, program: Program, unbuffered: str) -> None:
    path = program(
        """
        import time
        import modal
        app = modal.App("whole-lines")

        @app.function()
        def shout():
            for turn in range(500):
                print("there", "turn", turn, "of", 500)
                time.sleep(0.001)

        @app.local_entrypoint()
        def main():
            call = shout.spawn()
            turn = 0
            while True:
                print("here", "turn", turn)
                turn += 1
                try:
                    return call.get(timeout=0)
                except TimeoutError:
                    pass
        """
    )
    out = platform.modal("run", path, PYTHONUNBUFFERED=unbuffered).succeeded().out.splitlines()
    here = [line for line in out if line.startswith("here")]
    assert here == [f"here turn {turn}" for turn in range(len(here))]
    there = [line for line in out if not line.startswith("here")]
    assert there == [f"there turn {turn} of 500" for turn in range(500)]


def test_python_itself_runs_an_app_that_opens_its_output(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("by-python")

        @app.function()
        def hello():
            print("from the container")
            return 1

        if __name__ == "__main__":
            with app.run():
                print("silent", hello.remote())
            with modal.enable_output(), app.run():
                print("shown", hello.remote())
        """
    )
    with platform.background("python", path) as running:
        ran = running.end().succeeded()
    assert sorted(ran.out.splitlines()) == ["from the container", "shown 1", "silent 1"]
