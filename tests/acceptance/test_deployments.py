"""Deployed apps through whole commands: used from elsewhere, deployed side by side, killed with their server."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_harness import Outcome, Platform, Program, wait_until

#: Inputs of the map that a deployment falls into. The default keeps the suite short.
MAP_INPUTS = int(os.environ.get("INTERMODAL_MAP_INPUTS", "30000"))

SERVICE = """
    import modal

    VERSION = {version!r}
    app = modal.App("service")

    @app.function(concurrency_limit=2, {options})
    def version(x: int = 0) -> str:
        return VERSION

    @app.cls()
    class Counter:
        start: int = modal.parameter(default=0)

        @modal.enter()
        def begin(self):
            self.count = self.start

        @modal.method()
        def add(self, amount: int) -> int:
            self.count += amount
            return self.count
"""
ASK = """
    import modal, sys

    print(modal.Function.from_name("service", "version", environment_name=sys.argv[1]).remote())
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Platform]:
    """A server whose containers are plain processes, with commands of a user around it."""
    folder = Path(tempfile.mkdtemp(prefix="im-"))
    platform = Platform(folder / "d", runtime="mock", builder="memory", stop_grace="3")
    try:
        platform.intermodal("up").succeeded()
        yield platform
        platform.intermodal("down").succeeded()
    finally:
        if platform.server() is not None:
            platform.intermodal("down", "--force")
        shutil.rmtree(folder, ignore_errors=True)


class Service:
    """The app that the tests deploy, in a directory of its own."""

    def __init__(self, machine: Platform, program: Program) -> None:
        self.machine, self.program = machine, program

    def write(self, version: str, options: str = "", name: str = "service.py", text: str = SERVICE) -> Path:
        return self.program(text.format(version=version, options=options), name)

    def deploy(self, version: str, *args: object, options: str = "") -> Outcome:
        return self.machine.modal("deploy", self.write(version, options), *args)

    def answers(self, environment: str = "main") -> str:
        return self.machine.python(ASK, environment).succeeded().out.strip()

    def listed(self, environment: str = "main") -> dict[str, str]:
        """The row of the app in `modal app list`."""
        rows = json.loads(self.machine.modal("app", "list", "--json", "--env", environment).succeeded().out)
        return next(row for row in rows if row["description"] == "service" and row["state"] == "deployed")


@pytest.fixture
def service(machine: Platform, program: Program) -> Iterator[Service]:
    """Not deployed yet; stopped afterwards."""
    yield Service(machine, program)
    for environment in json.loads(machine.modal("environment", "list", "--json").succeeded().out):
        machine.modal("app", "stop", "service", "--env", environment["name"])


def test_other_processes_use_functions_classes_and_calls_of_a_deployed_app(service: Service) -> None:
    service.deploy("first").succeeded()
    ran = service.machine.python(
        """
        import modal

        counter = modal.Cls.from_name("service", "Counter")(start=10)
        print(counter.add.remote(1), counter.add.remote(2))
        print(sorted(set(modal.Function.from_name("service", "version").map(range(50)))))
        print(modal.Function.from_name("service", "version").spawn().object_id)
        """
    ).succeeded()
    counted, versions, call_id = ran.out.splitlines()
    assert (counted, versions) == ("11 13", "['first']")
    result = "import modal, sys; print(modal.FunctionCall.from_id(sys.argv[1]).get(timeout=30))"
    assert service.machine.python(result, call_id).succeeded().out == "first\n"


def test_deployments_side_by_side_are_versions_one_after_the_other(service: Service) -> None:
    names = [f"edition{number}" for number in range(4)]
    deploying = []
    for name in names:
        path = service.write(name, name=f"{name}/service.py")
        deploying.append(service.machine.background("modal", "deploy", path, "--tag", name))
    numbers = {}
    with deploying[0] as one, deploying[1] as two, deploying[2] as three, deploying[3] as four:
        for name, running in zip(names, (one, two, three, four), strict=True):
            said = running.end().succeeded()
            numbers[name] = int(re.search(r"version (\d+)", said.out + said.err)[1])  # type: ignore[index]
    first = min(numbers.values())
    assert sorted(numbers.values()) == list(range(first, first + 4))
    assert service.answers() == max(names, key=numbers.__getitem__)
    history = json.loads(service.machine.modal("app", "history", "service", "--json").succeeded().out)
    assert {row["tag"]: row["version"] for row in history} == {name: f"v{n}" for name, n in numbers.items()}


def test_a_deployment_during_a_map_loses_no_input_and_doubles_none(service: Service, tmp_path: Path) -> None:
    service.deploy("old").succeeded()
    code = """
        import json, os, sys, time
        import modal

        counts = {}
        for done, version in enumerate(modal.Function.from_name("service", "version").map(range(int(sys.argv[1]))), 1):
            counts[version] = counts.get(version, 0) + 1
            if done == 1000:
                print("under way", flush=True)
                while not os.path.exists(sys.argv[2]):  # the map goes on for as far as it may be ahead
                    time.sleep(0.01)
        print(json.dumps(counts))
        """
    program = service.program(code, "caller.py")
    with service.machine.background("python", program, MAP_INPUTS, tmp_path / "gate") as caller:
        caller.wait_for("under way")
        service.deploy("new").succeeded()
        (tmp_path / "gate").touch()
        ended = caller.end(60 + MAP_INPUTS / 500).succeeded()
    counts = json.loads(ended.out.splitlines()[-1])
    assert sum(counts.values()) == MAP_INPUTS
    assert set(counts) == {"old", "new"}
    assert service.answers() == "new"


def test_environments_keep_apps_of_one_name_apart(service: Service) -> None:
    service.machine.modal("environment", "create", "staging").succeeded()
    service.deploy("stable").succeeded()
    service.deploy("trial", "--env", "staging").succeeded()
    assert (service.answers("main"), service.answers("staging")) == ("stable", "trial")
    service.machine.modal("environment", "delete", "staging", "--confirm").succeeded()
    gone = service.machine.python(ASK, "staging")
    assert (gone.code, "NotFoundError: There is no environment 'staging'" in gone.err) == (1, True), str(gone)
    assert service.answers("main") == "stable"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("raise RuntimeError('not today')", "not today"),
        ("app.function(schedule=modal.Cron('61 * * * *'))(len)", "minute"),
        ("app.function(name='third', cpu=-1)(version.get_raw_f())", "cpu"),
    ],
    ids=["import", "schedule", "parameter"],
)
def test_a_deployment_that_fails_leaves_the_version_before(service: Service, broken: str, says: str) -> None:
    service.deploy("good").succeeded()
    before = service.listed()["version"]
    path = service.write("bad", text=SERVICE + f"\n    {broken}\n")
    failed = service.machine.modal("deploy", path)
    assert failed.code == 1
    assert says in failed.err
    assert service.answers() == "good"
    assert service.listed()["version"] == before


def test_a_rollback_brings_back_functions_and_schedules(service: Service) -> None:
    service.deploy("one", options='schedule=modal.Cron("0 0 1 1 *")').succeeded()
    assert service.listed()["next_run"].endswith("-01-01 00:00:00 UTC")
    service.deploy("two").succeeded()
    assert service.listed()["next_run"] == ""
    service.machine.modal("app", "rollback", "service").succeeded()
    assert service.answers() == "one"
    assert service.listed()["next_run"].endswith("-01-01 00:00:00 UTC")


CLOCK = """
    import modal

    app = modal.App("service")

    @app.function(schedule=modal.Period(seconds=1))
    def tick():
        with open({version!r}, "a") as file:
            file.write("tick\\n")

    @app.function(keep_warm=4)
    def version() -> str:
        return "clock"
"""


def test_a_killed_server_comes_back_with_apps_schedules_and_warm_containers(service: Service, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    service.machine.modal("deploy", service.write(str(marks), text=CLOCK)).succeeded()

    def runs() -> int:
        return len(marks.read_text().splitlines()) if marks.exists() else 0

    wait_until(lambda: runs() >= 2, "the schedule to run")
    code = """
        import os, sys, time
        import modal

        clock = modal.Function.from_name("service", "version")
        print(clock.remote(), flush=True)
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.05)
        print("again", clock.remote(), flush=True)
        """
    gate = tmp_path / "gate"
    with service.machine.background("python", service.program(code, "caller.py"), gate) as caller:
        caller.wait_for("clock")
        server = service.machine.server()
        assert server is not None
        server.kill()
        server.wait(20)
        time.sleep(1.5)  # something is due while no server runs
        seen = runs()
        gate.touch()  # a client of the local server starts it again
        caller.wait_for("again clock")
        caller.end().succeeded()
    wait_until(lambda: runs() >= seen + 2, "the schedule to go on")
    assert service.listed()["version"] == "1"
    wait_until(lambda: int(service.listed()["containers"]) >= 5, "the warm containers, and that of the schedule")
    service.machine.modal("app", "stop", "service").succeeded()
    ended = runs()
    time.sleep(1.5)
    assert runs() == ended
