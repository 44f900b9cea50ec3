"""Deployments that race each other, large maps, kills and stops: nothing is lost, doubled or mixed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_server import Users
from killable_server import Executions, until

import modal
from modal.exception import ExecutionError, NotFoundError
from modal.runner import deploy_app

#: Of the map that a deployment falls into. The default keeps the suite short; a million is what is promised.
INPUTS = int(os.environ.get("INTERMODAL_MAP_INPUTS", "20000"))


def counted(number: int, image: modal.Image, **options: object) -> modal.App:
    """An app whose function notes each execution and says which version it is of."""
    app = modal.App("counted", image=image)

    def mark(path: str, x: int) -> tuple[int, int]:
        import os

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"%d\n" % x)
        os.close(descriptor)
        return x, number

    app.function(serialized=True, name="mark", **options)(mark)  # type: ignore[arg-type]
    return app


def test_concurrent_deployments_get_a_version_each_and_do_not_mix(users: Users) -> None:
    program = """
        import sys, modal
        from modal.runner import deploy_app
        number = int(sys.argv[1])
        app = modal.App("raced", image=modal.Image.debian_slim(python_version="%d.%d" % sys.version_info[:2]))
        for name in ("one", "two", "three", f"only_{number}"):
            app.function(serialized=True, name=name)(lambda number=number: number)
        deploy_app(app, tag=f"by-{number}")
        print(app._functions["one"].remote() >= 0)
    """
    deployers = [users.start_python(program, str(number)) for number in range(6)]
    for process in deployers:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "True\n"), err
    versions = users.listed("app", "history", "raced")
    assert sorted(one["version"] for one in versions) == [f"v{n}" for n in range(1, 7)]
    assert sorted(one["tag"] for one in versions) == [f"by-{n}" for n in range(6)]
    last = int(versions[0]["tag"].removeprefix("by-"))
    in_force = [modal.Function.from_name("raced", name).remote() for name in ("one", "two", "three", f"only_{last}")]
    assert in_force == [last] * 4
    for number in set(range(6)) - {last}:
        with pytest.raises(NotFoundError):
            modal.Function.lookup("raced", f"only_{number}")


@pytest.mark.timeout(400 + INPUTS // 500)
def test_a_deployment_during_a_large_map_loses_and_doubles_nothing(
    users: Users, image: modal.Image, executions_of: Executions
) -> None:
    deploy_app(counted(1, image))
    mark = modal.Function.lookup("counted", "mark")
    outputs: list[tuple[int, int]] = []
    deployed = threading.Event()

    def deploy_again() -> None:
        deploy_app(counted(2, image))
        deployed.set()

    def numbers() -> Iterator[int]:
        yield from range(INPUTS // 2)
        deployed.wait(300)  # the map must not be over before, however slow this machine is
        yield from range(INPUTS // 2, INPUTS)

    again = threading.Thread(target=deploy_again)
    for output in mark.map([executions_of.path] * INPUTS, numbers(), order_outputs=False):
        outputs.append(output)
        if len(outputs) == INPUTS // 10:
            again.start()
    again.join()
    assert sorted(x for x, _ in outputs) == list(range(INPUTS))
    assert executions_of.counts() == Counter(range(INPUTS))
    by_version = Counter(version for _, version in outputs)
    assert by_version[1] >= INPUTS // 10
    # What was under way when the new version came into force is all that the old one still did.
    assert by_version[2] >= INPUTS // 2


def test_deployed_apps_outlive_the_server(users: Users, image: modal.Image, executions_of: Executions) -> None:
    deploy_app(counted(1, image))
    deploy_app(counted(2, image, keep_warm=1))
    mark = modal.Function.lookup("counted", "mark")
    rng = random.Random(7)
    calls = []
    for round_ in range(3):
        calls += [mark.spawn(executions_of.path, 100 * round_ + x) for x in range(100)]
        threading.Event().wait(rng.uniform(0.0, 0.1))
        users.server.kill()
        users.server.start()
    assert [call.get(timeout=60) for call in calls] == [(x, 2) for x in range(300)]
    found = users.python("""
        import json, modal, sys, time
        mark = modal.Function.from_name("counted", "mark")
        while mark.get_current_stats().num_total_runners != 1:
            time.sleep(0.05)
        print(json.dumps([mark.remote("/dev/null", 5), mark.object_id]))
    """)
    assert found == [[5, 2], mark.object_id]
    assert "Version 3" in users.modal("app", "rollback", "counted")
    assert mark.remote("/dev/null", 5) == (5, 1)
    users.server.kill()
    users.server.start()
    assert mark.remote("/dev/null", 6) == (6, 1)


def test_a_removed_function_does_not_come_back_with_the_server(users: Users, image: modal.Image) -> None:
    deploy_app(counted(1, image, keep_warm=1))
    mark = modal.Function.lookup("counted", "mark")
    users.deploy('import modal\napp = modal.App("counted")\n@app.function()\ndef other(): return 1')
    users.server.kill()
    users.server.start()
    with pytest.raises(NotFoundError):
        mark.remote("/dev/null", 1)
    assert modal.Function.from_name("counted", "other").remote() == 1
    assert [one["containers"] for one in users.apps()] == ["1"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_deployment_that_is_killed_leaves_the_version_before(
    users: Users, image: modal.Image, tmp_path: Path, how: signal.Signals
) -> None:
    deploy_app(counted(1, image))
    program = """
        import pathlib, signal, sys, modal, os, time
        from modal import _running
        from modal.runner import deploy_app
        app = modal.App("counted", image=modal.Image.debian_slim(python_version="%d.%d" % sys.version_info[:2]))
        app.function(serialized=True, name="mark")(lambda *args: "new")
        publish = _running.load
        async def load(*args):
            handles = await publish(*args)
            open(sys.argv[1], "w").close()
            import asyncio
            await asyncio.sleep(60)
            return handles
        _running.load = load
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        deploy_app(app)
    """
    process = users.start_python(program, str(tmp_path / "loaded"))
    until((tmp_path / "loaded").exists, "the deployment to be nearly done")
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert [one["version"] for one in users.listed("app", "history", "counted")] == ["v1"]
    assert [one["state"] for one in users.apps()] == ["deployed"]
    assert modal.Function.from_name("counted", "mark").remote("/dev/null", 1) == (1, 1)


def test_an_app_that_is_stopped_while_it_is_deployed_again(users: Users, image: modal.Image) -> None:
    """Either the stop comes last and all is gone, or the deployment does and the app is a new one."""
    for round_ in range(5):
        deploy_app(counted(1, image))
        before = modal.App.lookup("counted").app_id
        outcome: list[str] = []

        def again(outcome: list[str] = outcome) -> None:
            try:
                outcome.append(deploy_app(counted(2, image)).app_id)
            except NotFoundError as error:
                outcome.append(str(error))

        thread = threading.Thread(target=again)
        thread.start()
        threading.Event().wait(0.02 * round_)
        users.modal("app", "stop", str(before))
        thread.join(30)
        states = {one["app_id"]: one["state"] for one in users.listed("app", "list")}
        assert states[str(before)] == "stopped"
        if outcome == [before] or "was stopped while" in outcome[0]:
            with pytest.raises(NotFoundError):
                modal.Function.lookup("counted", "mark")
        else:
            assert states[outcome[0]] == "deployed"
            assert modal.Function.from_name("counted", "mark").remote("/dev/null", 1) == (1, 2)
            users.modal("app", "stop", outcome[0])


def test_calls_of_a_client_that_is_gone_end_and_spawned_ones_go_on(
    users: Users, image: modal.Image, tmp_path: Path, executions_of: Executions
) -> None:
    app = modal.App("slow", image=image)

    def slow(path: str, x: int) -> int:
        import os
        import time

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"%d\n" % x)
        os.close(descriptor)
        time.sleep(0.2)
        return x

    app.function(serialized=True, name="slow", concurrency_limit=2)(slow)
    deploy_app(app)
    program = """
        import sys, itertools, modal, threading
        slow = modal.Function.from_name("slow", "slow")
        print(slow.spawn(sys.argv[1], 1000).object_id, flush=True)
        for x in slow.map([sys.argv[1]] * 500, range(500)):
            print(x, flush=True)
    """
    client = users.start_python(program, executions_of.path)
    assert client.stdout is not None
    call_id = client.stdout.readline().strip()
    assert client.stdout.readline() == "0\n"
    client.kill()
    client.communicate()
    function = modal.Function.lookup("slow", "slow")
    until(lambda: function.get_current_stats().backlog == 0, "what the map had queued to be dropped")
    assert sum(executions_of.counts().values()) < 100
    assert modal.FunctionCall.from_id(call_id).get(timeout=30) == 1000


def test_a_detached_app_whose_client_is_killed_in_a_map_ends_when_the_inputs_it_has_are_done(
    users: Users, executions_of: Executions
) -> None:
    program = """
        import itertools, sys, modal
        app = modal.App("left", image=modal.Image.debian_slim(python_version="%d.%d" % sys.version_info[:2]))

        def mark(path, x):
            import os, time
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, b"%d\\n" % x)
            os.close(descriptor)
            time.sleep(0.01)
            return x

        mark = app.function(serialized=True)(mark)

        def endless():
            for x in itertools.count():
                yield x
                if x > 100:
                    import time
                    time.sleep(0.05)

        with app.run(detach=True):
            for x in mark.map(itertools.repeat(sys.argv[1]), endless()):
                print(x, flush=True)
    """
    client = users.start_python(program, executions_of.path)
    assert client.stdout is not None
    for x in range(20):
        assert client.stdout.readline() == f"{x}\n"
    client.kill()
    client.communicate()
    until(lambda: users.apps() == [], "the app to end when its inputs are done")
    counts = executions_of.counts()
    assert sorted(counts) == list(range(len(counts)))
    assert set(counts.values()) == {1}


def test_a_deployment_is_asked_for_again_after_the_server_was_killed(
    users: Users, image: modal.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies at any moment of a deployment: the client's second attempt finds what the first has done."""
    rng = random.Random(3)
    deploy_app(counted(0, image))  # who was connected once is more patient
    with users.server.killed_at_random(rng, (0.05, 0.6), 4):
        for number in range(1, 6):
            deploy_app(counted(number, image))
    versions = users.listed("app", "history", "counted")
    assert [one["version"] for one in versions] == ["v6", "v5", "v4", "v3", "v2", "v1"]
    deploy_app(counted(9, image))
    assert modal.Function.from_name("counted", "mark").remote("/dev/null", 1) == (1, 9)


def test_containers_call_deployed_apps_of_their_own_environment_only(users: Users, image: modal.Image) -> None:
    users.modal("environment", "create", "other")
    deploy_app(counted(1, image))
    deploy_app(counted(2, image), environment_name="other")
    app = modal.App("caller", image=image)

    def call(environment: str = "", mark_id: str = "") -> object:
        import modal

        if mark_id:
            function = modal.Function._new("by id")
            function._tag, function._object_id = "mark", mark_id
        else:
            function = modal.Function.from_name("counted", "mark", environment_name=environment or None)
        return function.remote("/dev/null", 3)

    def spawn() -> object:
        import modal

        return modal.Function.lookup("counted", "mark").spawn("/dev/null", 4).get()

    def make() -> object:
        import modal

        return modal.App.lookup("new", create_if_missing=True).app_id

    functions = [app.function(serialized=True)(one) for one in (call, spawn, make)]
    with app.run():
        assert functions[0].remote() == (3, 1)
        assert functions[0].remote("main") == (3, 1)
        assert functions[1].remote() == (4, 1)
        with pytest.raises(modal.exception.AuthError, match="only use the environment of its app"):
            functions[0].remote("other")
        with pytest.raises(modal.exception.AuthError, match="deployed apps of the same environment"):
            functions[0].remote("", modal.Function.lookup("counted", "mark", environment_name="other").object_id)
        with pytest.raises(modal.exception.AuthError, match="inside a container"):
            functions[2].remote()


def test_a_new_version_whose_containers_cannot_start_fails_with_the_reason(users: Users, image: modal.Image) -> None:
    """And the version before comes back with one command."""
    deploy_app(counted(1, image))
    mark = modal.Function.lookup("counted", "mark")
    users.write("import modal\nVALUE = 1\n", "helper.py")
    users.deploy(
        """
        import modal
        app = modal.App("counted")
        if not modal.is_local():
            import no_such_module_anywhere

        @app.function()
        def mark(*args):
            return 2
        """
    )
    with pytest.raises((ExecutionError, ImportError), match="no_such_module_anywhere"):
        mark.remote("/dev/null", 1)
    users.modal("app", "rollback", "counted")
    assert mark.remote("/dev/null", 1) == (1, 1)
