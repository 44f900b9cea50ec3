"""Functions that serve the parameters of a class outlive the server, with what waits for them and what was set."""

from __future__ import annotations

from pathlib import Path

from killable_server import Executions, KillableServer, until

import modal


def deployed(app: modal.App, path: str) -> None:
    """Add a class to the app whose executions are counted by its parameter."""

    @app.cls(serialized=True, retries=modal.Retries(max_retries=10, initial_delay=0.0))
    class Model:
        number: int = modal.parameter()

        @modal.enter()
        def start(self) -> None:
            self.entered = self.number

        @modal.method()
        def work(self, seconds: float) -> int:
            import os
            import time

            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, b"%d\n" % self.number)
            os.close(descriptor)
            time.sleep(seconds)
            return self.entered


def test_calls_of_bound_functions_go_on_after_a_kill(
    server: KillableServer, client: modal.Client, executions: Executions
) -> None:
    app = modal.App("models")
    deployed(app, executions.path)
    modal.runner.deploy_app(app, client=client)
    cls = modal.Cls.lookup("models", "Model", client=client)
    calls = [cls(number=number).work.spawn(1.0) for number in range(4)]
    waiting = [cls(number=0).work.spawn(0.0) for _ in range(5)]
    ids = [cls(number=number).work.hydrate().object_id for number in range(4)]
    until(lambda: executions.counts()[0] >= 1, "an input to begin")
    server.kill()
    server.start()
    assert [call.get(timeout=60) for call in calls] == [0, 1, 2, 3]
    assert [call.get(timeout=60) for call in waiting] == [0] * 5
    again = modal.Cls.lookup("models", "Model", client=client)
    assert [again(number=number).work.hydrate().object_id for number in range(4)] == ids


def test_a_warm_pool_of_one_set_of_parameters_comes_back_after_a_kill(
    server: KillableServer, client: modal.Client, executions: Executions
) -> None:
    app = modal.App("models")
    deployed(app, executions.path)
    modal.runner.deploy_app(app, client=client)
    model = modal.Cls.lookup("models", "Model", client=client)(number=7)
    model.keep_warm(1)
    until(lambda: model.work.get_current_stats().num_total_runners == 1, "the warm container")
    server.kill()
    server.start()
    until(lambda: model.work.get_current_stats().num_total_runners == 1, "the warm container after the kill")
    assert model.work.remote(0.0) == 7


def test_exit_hooks_of_deployed_classes_run_when_the_server_stops(
    server: KillableServer, client: modal.Client, tmp_path: Path
) -> None:
    place = str(tmp_path / "said")
    app = modal.App("models")

    @app.cls(serialized=True)
    class Model:
        @modal.method()
        def work(self) -> None: ...

        @modal.exit()
        def stop(self) -> None:
            Path(place).write_text("exit")

    modal.runner.deploy_app(app, client=client)
    modal.Cls.lookup("models", "Model", client=client)().work.remote()
    server.stop()
    assert Path(place).read_text() == "exit"
