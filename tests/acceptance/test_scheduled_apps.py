"""Deployed apps with schedules through whole commands: in environments, over deployments, over a kill of the server."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_harness import Outcome, Platform, Program, wait_until

CLOCK = """
    import modal

    app = modal.App("clock")

    @app.function({options})
    def tick(mark: str = {mark!r}):
        with open({marks!r}, "a") as file:
            file.write(mark)

    @app.function({others})
    def show(text: str) -> str:
        return text
"""
EVERY_SECOND = "schedule=modal.Period(seconds=1)"
NEW_YEAR = 'schedule=modal.Cron("0 0 1 1 *")'


@pytest.fixture(scope="module")
def machine() -> Iterator[Platform]:
    """A server whose containers are plain processes, with the commands of a user around it."""
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


class Clock:
    """An app whose function leaves marks in a file."""

    def __init__(self, machine: Platform, program: Program, marks: Path) -> None:
        self.machine, self.program, self.marks = machine, program, marks

    def write(self, options: str = "", others: str = "", mark: str = ".") -> Path:
        text = CLOCK.format(options=options, others=others, mark=mark, marks=str(self.marks))
        return self.program(text, "clock.py")

    def deploy(self, options: str = "", *args: object, others: str = "", mark: str = ".") -> Outcome:
        return self.machine.modal("deploy", self.write(options, others, mark), *args)

    def runs(self, mark: str = ".") -> int:
        return self.marks.read_text().count(mark) if self.marks.exists() else 0

    def goes_on(self, mark: str = ".") -> None:
        """Wait for two more runs."""
        enough = self.runs(mark) + 2
        wait_until(lambda: self.runs(mark) >= enough, "the schedule to run")

    def listed(self, environment: str = "main") -> dict[str, str]:
        """The app's row in `modal app list`."""
        rows = json.loads(self.machine.modal("app", "list", "--json", "--env", environment).succeeded().out)
        return next(row for row in rows if row["description"] == "clock" and row["state"] == "deployed")


@pytest.fixture
def clock(machine: Platform, program: Program, tmp_path: Path) -> Iterator[Clock]:
    """Not deployed yet; stopped afterwards."""
    yield Clock(machine, program, tmp_path / "marks")
    machine.modal("app", "stop", "clock")


def test_a_run_takes_no_notice_of_a_schedule_and_a_deployment_says_when_it_is_due(clock: Clock) -> None:
    program = clock.write(EVERY_SECOND)
    clock.machine.modal("run", f"{program}::tick", "--mark", "x").succeeded()
    assert (clock.runs("x"), clock.runs()) == (1, 0)
    deployed = clock.deploy(NEW_YEAR).succeeded()
    [line] = [line for line in deployed.err.splitlines() if "next run" in line]
    assert "tick" in line
    assert line.endswith("-01-01 00:00:00 UTC")
    assert clock.listed()["next_run"] == line.rpartition("next run ")[2]


def test_a_schedule_changes_with_each_version_and_comes_back_with_a_rollback(clock: Clock) -> None:
    clock.deploy(NEW_YEAR).succeeded()
    clock.deploy("schedule=modal.Cron('61 * * * *')").failed_with_traceback("InvalidError", "minute")
    assert clock.listed()["next_run"].endswith("-01-01 00:00:00 UTC")
    clock.deploy(EVERY_SECOND).succeeded()
    clock.goes_on()
    clock.deploy().succeeded()
    assert clock.listed()["next_run"] == ""
    clock.machine.modal("app", "rollback", "clock", "v1").succeeded()
    assert clock.listed()["next_run"].endswith("-01-01 00:00:00 UTC")


def test_environments_keep_apps_of_one_name_apart(clock: Clock) -> None:
    clock.machine.modal("environment", "create", "staging").succeeded()
    clock.deploy(EVERY_SECOND, mark="m").succeeded()
    clock.deploy(EVERY_SECOND, "--env", "staging", mark="s").succeeded()
    clock.goes_on("m")
    clock.goes_on("s")
    clock.machine.modal("environment", "delete", "staging", "--confirm").succeeded()
    ended = clock.runs("s")
    clock.goes_on("m")
    assert clock.runs("s") == ended
    clock.machine.modal("app", "stop", "clock").succeeded()
    rows = json.loads(clock.machine.modal("app", "list", "--json").succeeded().out)
    assert {(row["state"], row["next_run"]) for row in rows if row["description"] == "clock"} == {("stopped", "")}


def test_a_killed_server_comes_back_with_apps_schedules_and_warm_containers(clock: Clock, tmp_path: Path) -> None:
    clock.deploy(EVERY_SECOND, others="keep_warm=4").succeeded()
    clock.goes_on()
    code = """
        import os, sys, time
        import modal

        show = modal.Function.from_name("clock", "show")
        print(show.remote("here"), flush=True)
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.05)
        print(show.remote("here again"), flush=True)
        """
    gate = tmp_path / "gate"
    with clock.machine.background("python", clock.program(code, "caller.py"), gate) as caller:
        caller.wait_for("here")
        server = clock.machine.server()
        assert server is not None
        server.kill()
        server.wait(20)
        gate.touch()  # a client of the local server starts it again
        caller.wait_for("here again")
        caller.end().succeeded()
    clock.goes_on()
    assert clock.listed()["version"] == "1"
    wait_until(lambda: int(clock.listed()["containers"]) >= 5, "the warm containers, and that of the schedule")


@pytest.mark.e2e
def test_the_log_tells_why_a_run_in_an_isolated_container_failed(platform: Platform, program: Program) -> None:
    failing = program(
        """
        import modal

        app = modal.App("failing")

        @app.function(schedule=modal.Period(seconds=1), retries=modal.Retries(max_retries=1, initial_delay=0.0))
        def tick():
            print("a run in", modal.current_input_id()[:3])
            raise LookupError("there is no paper")
        """
    )
    platform.modal("deploy", failing).succeeded()
    try:
        with platform.background("modal", "app", "logs", "failing") as logs:
            for text in ("a run in in-", "LookupError: there is no paper", ") failed"):
                logs.wait_for(text)
            printed = logs.out + logs.err
    finally:
        platform.modal("app", "stop", "failing").succeeded()
    assert 'raise LookupError("there is no paper")' in printed
    assert "The run of tick that was due at 20" in printed
    Outcome(0, printed, "").shows_no_frame_of_ours()
