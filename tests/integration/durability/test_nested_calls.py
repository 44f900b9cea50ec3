"""Calls that an input made and waits for end with its container, and are made anew when the input is tried again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from killable_server import Executions, KillableServer, until

import modal

INTERRUPTED = 1000  #: added to what an execution notes when it is interrupted


def nested_app(path: str, go: str) -> tuple[modal.App, Any]:
    """`outer` notes its negative argument, spawns `inner(x)` and waits for `inner(x + 1)`."""
    app = modal.App("nested")

    @app.function(serialized=True)
    def inner(x: int) -> int:
        import os
        import time

        def note(number: int) -> None:
            with open(path, "a") as file:
                file.write(f"{number}\n")

        note(x)
        try:
            while not os.path.exists(go):
                time.sleep(0.02)
        except BaseException:
            note(x + INTERRUPTED)
            raise
        return x * x

    @app.function(serialized=True, retries=3)
    def outer(x: int) -> list[Any]:
        import os

        with open(path + ".pid", "w") as file:
            file.write(str(os.getpid()))
        with open(path, "a") as file:
            file.write(f"{-x}\n")
        spawned = inner.spawn(x)
        return [inner.remote(x + 1), spawned.object_id]

    return app, outer


@pytest.mark.parametrize("who", ["container", "server"])
def test_calls_of_a_lost_container_end_and_are_made_anew(
    who: str, server: KillableServer, client: modal.Client, executions: Executions, tmp_path: Path
) -> None:
    app, outer = nested_app(executions.path, str(tmp_path / "go"))
    with app.run(client=client, detach=True):
        call = outer.spawn(10)
        until(lambda: set(executions.counts()) == {-10, 10, 11}, "everything to run")
        if who == "server":
            server.kill()
            server.start()
        else:
            os.kill(int(Path(executions.path + ".pid").read_text()), signal.SIGKILL)
            until(lambda: executions.counts()[11 + INTERRUPTED] == 1, "the awaited call to be interrupted")
        spawned = 3 if who == "server" else 2  # what was spawned lives on, and runs again after a restart
        until(lambda: executions.counts()[11] == 2 and executions.counts()[10] == spawned, "the input to run again")
        (tmp_path / "go").touch()
        squared, spawned_id = call.get(timeout=30)
        assert squared == 121
        assert modal.FunctionCall.from_id(spawned_id, client).get(timeout=30) == 100
    counts = executions.counts()
    assert (counts[-10], counts[11], counts[10]) == (2, 2, spawned)
    assert counts[10 + INTERRUPTED] == 0
