"""Ctrl-C, killed clients and killed servers: everyone is told, and nothing goes on running that nobody waits for."""

from __future__ import annotations

import signal
import time

import psutil
import pytest
from acceptance_harness import Platform, Program, wait_until

pytestmark = pytest.mark.e2e

SLEEPER = """
    import time
    import modal
    app = modal.App("sleeper")

    @app.function()
    def work(seconds: float):
        print("working", flush=True)
        time.sleep(seconds)
        return seconds

    @app.local_entrypoint()
    def main():
        print("result", work.remote(100))
"""


def process_runs(command: str) -> bool:
    """Whether a process with this command line runs, in whatever container."""
    return any(" ".join(process.info["cmdline"] or []) == command for process in psutil.process_iter(["cmdline"]))


def no_containers(platform: Platform, seconds: float) -> None:
    wait_until(lambda: not platform.containers(), "the containers to be gone", seconds)


@pytest.mark.parametrize("how", ["", "--quiet"])
def test_ctrl_c_says_that_the_app_is_stopped_and_stops_its_containers(
    how: str, platform: Platform, program: Program
) -> None:
    with platform.background("modal", "run", *how.split(), program(SLEEPER)) as running:
        running.wait_for("working")
        assert platform.containers()
        running.send(signal.SIGINT)
        ran = running.end(20)
    ran.failed_with_one_sentence("Interrupted: stopping the app and its containers", code=130)
    assert ("App stopped" in ran.err) == (how != "--quiet")
    assert "result" not in ran.out
    no_containers(platform, 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_detached_app_running(
    platform: Platform, program: Program, number: signal.Signals, code: int
) -> None:
    path = program(SLEEPER.replace("remote(100)", "remote(4)"))
    with platform.background("modal", "run", "--detach", path) as running:
        running.wait_for("working")
        running.send(number)
        running.end(20).failed_with_one_sentence("goes on running, detached", code=code)
    assert platform.containers()
    app_id = running.err.partition("App ap-")[2].split()[0]
    platform.modal("app", "stop", f"ap-{app_id}").succeeded()
    no_containers(platform, 10)


def test_sigterm_of_the_client_stops_the_app(platform: Platform, program: Program) -> None:
    with platform.background("modal", "run", program(SLEEPER)) as running:
        running.wait_for("working")
        running.send(signal.SIGTERM)
        assert running.end(20).shows_no_frame_of_ours().code == 143
    no_containers(platform, 1)


def test_ctrl_c_during_a_build_stops_the_build(platform: Platform, program: Program) -> None:
    naps = f"sleep 9{time.time_ns()}"  # no other process on this machine has these words
    path = program(
        f"""
        import modal
        image = modal.Image.debian_slim().run_commands("echo building && {naps}")
        app = modal.App("build", image=image)

        @app.function()
        def f():
            return 1
        """
    )
    with platform.background("modal", "run", path) as running:
        running.wait_for("\nbuilding\n")
        wait_until(lambda: process_runs(naps), "the build step to run")
        running.send(signal.SIGINT)
        ran = running.end(20)
    ran.failed_with_one_sentence("Interrupted: the app was not started", code=130)
    wait_until(lambda: not process_runs(naps), "the build step to end", 10)


def test_the_app_of_a_killed_client_stops_after_the_grace(platform: Platform, program: Program) -> None:
    with platform.background("modal", "run", program(SLEEPER)) as running:
        running.wait_for("working")
        running.send(signal.SIGKILL)
        running.end()
    assert platform.containers(), "it did not wait for the client to come back"
    no_containers(platform, 15)  # grace of 3 s, and 3 s for the input to end


def test_a_server_that_is_terminated_stops_everything_and_the_client_says_so(
    platform: Platform, program: Program
) -> None:
    with platform.background("modal", "run", program(SLEEPER), MODAL_RECONNECT_TIMEOUT="2") as running:
        running.wait_for("working")
        server = platform.server()
        assert server is not None
        server.terminate()
        ran = running.end(40).shows_no_frame_of_ours()
        wait_until(lambda: platform.server() is None, "the server to end", 20)
    assert ran.code == 1, str(ran)
    assert "server" in ran.err.splitlines()[-1], str(ran)
    wait_until(lambda: not platform.leftovers(), f"nothing to be left: {platform.leftovers()}", 10)


def test_a_server_killed_during_a_run_ends_it_with_one_sentence_and_the_next_start_cleans_up(
    platform: Platform, program: Program
) -> None:
    # A client that was told where its server is does not start one.
    platform.intermodal("up").succeeded()
    with platform.background(
        "modal", "run", program(SLEEPER), MODAL_RECONNECT_TIMEOUT="2", MODAL_SERVER_URL=url_of(platform)
    ) as running:
        running.wait_for("working")
        server = platform.server()
        assert server is not None
        server.kill()
        ran = running.end(30)
    ran.failed_with_one_sentence("Error: Cannot connect to the server", "Check that it is running")
    assert ran.err.count("The connection to the server was lost") == 1
    before = platform.containers()
    assert before, "a killed server should have left its container behind"
    started = platform.intermodal("up").succeeded()
    assert "The server started" in started.out
    assert not before & platform.containers(), "the next start did not clean up"
    assert not [left for left in platform.leftovers() if any(name in left for name in before)]
    # The app's input runs again until its client has stayed away for too long.
    no_containers(platform, 15)
    platform.intermodal("down").succeeded()
    wait_until(lambda: not platform.leftovers(), f"nothing to be left: {platform.leftovers()}", 10)


def url_of(platform: Platform) -> str:
    return f"unix://{platform.data_dir}/run/server.sock"


def test_a_killed_local_server_is_started_again_by_its_client(platform: Platform, program: Program) -> None:
    path = program(SLEEPER.replace("remote(100)", "remote(4)"))
    with platform.background("modal", "run", path) as running:
        running.wait_for("working")
        server = platform.server()
        assert server is not None
        before = platform.containers()
        server.kill()
        ran = running.end(60).succeeded()
    assert ran.out.splitlines()[-1] == "result 4"
    assert "The local Intermodal server had died; started it again." in ran.err
    assert not before & platform.containers(), "the next start did not clean up"


def test_a_killed_server_that_is_started_again_in_time_lets_the_run_go_on(platform: Platform, program: Program) -> None:
    path = program(
        """
        import os, time
        import modal
        app = modal.App("goes-on")

        @app.function()
        def work(x):
            print("working", flush=True)
            time.sleep(0.2)
            return x

        @app.local_entrypoint()
        def main():
            print(sum(work.map(range(30), return_exceptions=False)))
        """
    )
    platform.intermodal("up").succeeded()
    with platform.background(
        "modal", "run", path, MODAL_RECONNECT_TIMEOUT="30", MODAL_SERVER_URL=url_of(platform)
    ) as running:
        running.wait_for("working")
        server = platform.server()
        assert server is not None
        server.kill()
        wait_until(lambda: platform.server() is None, "the server to die")
        platform.intermodal("up").succeeded()
        ran = running.end(60)
    # Inputs that ran when the server died end in a reported failure, or run again; none is lost without a word.
    if ran.code == 0:
        assert ran.out.splitlines()[-1] == str(sum(range(30)))
    else:
        ran.failed_with_traceback("sum(work.map(", "server")


def test_two_runs_that_race_to_start_the_server_start_one(platform: Platform, program: Program) -> None:
    platform.intermodal("down").succeeded()
    path = program("import modal\napp = modal.App('race')\n@app.function()\ndef f(): return 'ran'\n")
    with (
        platform.background("modal", "run", path) as one,
        platform.background("modal", "run", path) as other,
        platform.background("modal", "run", path) as third,
    ):
        outcomes = [running.end().succeeded() for running in (one, other, third)]
    assert [outcome.out for outcome in outcomes] == ["ran\n"] * 3
    assert any("Started the local Intermodal server" in outcome.err for outcome in outcomes)
    serving = [left for left in platform.leftovers() if "intermodal.cli serve" in left]
    assert len(serving) == 1, serving
