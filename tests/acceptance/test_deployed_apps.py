"""A deployed app in real containers: files and images of each version, bad images, rollbacks, containers that stay."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from acceptance_harness import Platform, Program, wait_until

pytestmark = pytest.mark.e2e

SERVICE = """
    import modal
    from helper import VERSION

    image = modal.Image.debian_slim().run_commands({command!r})
    app = modal.App("shop", image=image)

    @app.function(keep_warm=1)
    def which(seconds: float = 0.0):
        import time
        time.sleep(seconds)
        with open("/version") as file:
            return [VERSION, file.read().strip()]
"""
USE = """
    import json, sys, modal
    which = modal.Function.from_name("shop", "which")
    calls = {
        "remote": lambda: which.remote(),
        "spawn": lambda: which.spawn(float(sys.argv[2])).object_id,
        "get": lambda: modal.FunctionCall.from_id(sys.argv[2]).get(timeout=60),
        "map": lambda: list(which.map([0.0] * 20)),
    }
    print(json.dumps(calls[sys.argv[1]]()))
"""


class Shop:
    """A service and those who use it."""

    def __init__(self, platform: Platform, program: Program) -> None:
        self._platform, self._program = platform, program
        program(USE, "use.py")

    def deploy(self, number: int, command: str = "") -> tuple[str, ...]:
        """The arguments of a deployment of version `number`, whose files are written."""
        self._program(f"VERSION = {number}\n", "helper.py")
        path = self._program(SERVICE.format(command=command or f"echo {number} > /version"), "shop.py")
        return "deploy", str(path)

    def use(self, *args: object) -> object:
        done = self._platform.python(self._program.folder / "use.py", *args)
        return json.loads(done.succeeded().out)


@pytest.fixture
def shop(platform: Platform, program: Program) -> Iterator[Shop]:
    yield Shop(platform, program)
    for app in json.loads(platform.modal("app", "list", "--json").succeeded().out):
        if app["state"] == "deployed":
            platform.modal("app", "stop", app["app_id"]).succeeded()


def test_each_version_has_its_own_image_and_files(platform: Platform, shop: Shop) -> None:
    platform.modal(*shop.deploy(1)).succeeded()
    assert shop.use("remote") == [1, "1"]
    running = shop.use("spawn", 10)
    [old] = platform.containers()
    platform.modal(*shop.deploy(2)).succeeded()
    assert shop.use("remote") == [2, "2"]
    assert shop.use("map") == [[2, "2"]] * 20
    assert shop.use("get", running) == [1, "1"]
    wait_until(lambda: old not in platform.containers(), "the container of the first version to end")
    bad = platform.modal(*shop.deploy(3, "echo no such luck >&2; exit 3"))
    bad.failed_with_one_sentence("no such luck")
    assert shop.use("remote") == [2, "2"]
    platform.modal("app", "rollback", "shop").succeeded()
    assert shop.use("remote") == [1, "1"]
    notes = [one["note"] for one in json.loads(platform.modal("app", "history", "shop", "--json").succeeded().out)]
    assert notes == ["rollback to v1, in force", "", ""]


def test_a_deployed_app_is_back_with_its_warm_container_after_a_crash_of_the_server(
    platform: Platform, shop: Shop
) -> None:
    platform.modal(*shop.deploy(1)).succeeded()
    wait_until(lambda: len(platform.containers()) == 1, "the warm container")
    waiting = shop.use("spawn", 3)
    before = platform.containers()
    server = platform.server()
    assert server is not None
    server.kill()
    server.wait(10)
    platform.intermodal("up").succeeded()
    assert shop.use("get", waiting) == [1, "1"]
    wait_until(lambda: len(platform.containers()) >= 1, "the warm container to be back")
    assert not before & platform.containers()
    assert shop.use("remote") == [1, "1"]
