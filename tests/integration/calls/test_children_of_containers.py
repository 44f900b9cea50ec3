"""Programs and processes that a function starts: they reach what it reaches."""

from __future__ import annotations

from typing import Any

import pytest
from real_server import RealServer

import modal


def start(how: str) -> Any:
    """In a child process, take an item from the queue "for-children" and put what came of that into the dict."""
    import multiprocessing
    import os
    import subprocess
    import sys

    text = (
        "import modal\n"
        "item = modal.Queue.from_name('for-children').get(timeout=20)\n"
        "modal.Dict.from_name('of-children')['item'] = item\n"
    )
    os.environ.pop("MODAL_SERVER_URL", None)  # where containers are plain processes they have it from the tests
    os.environ["INTERMODAL_DATA_DIR"] = "/dev/null"  # and there a child might start a server
    if how == "program":
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr
    process = multiprocessing.get_context(how).Process(target=exec, args=(text,))
    process.start()
    process.join(60)
    return process.exitcode, ""


@pytest.mark.parametrize("how", ["program", "spawn", "forkserver", "fork"])
def test_children_of_a_container_use_objects(how: str, real_server: RealServer, app: modal.App) -> None:
    items = modal.Queue.lookup("for-children", create_if_missing=True)
    found = modal.Dict.lookup("of-children", create_if_missing=True)
    function = app.function(serialized=True)(start)
    items.put(how)
    with app.run():
        assert function.remote(how) == (0, "")
    assert found.pop("item") == how
