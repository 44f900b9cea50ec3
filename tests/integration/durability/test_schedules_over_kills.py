"""The server is killed at random moments while a schedule runs: no run is lost, and none is made twice."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import closing

import pytest
from killable_server import ROUNDS, Executions, KillableServer, until

import modal

PERIOD = 1.0  # seconds


class Journal:
    """What is on disk while no server runs."""

    def __init__(self, server: KillableServer) -> None:
        with closing(sqlite3.connect(server.data_dir / "state.db")) as database:
            [(self.anchor, self.next_run)] = database.execute("select anchor, next_run from schedules")
            calls = database.execute(
                "select call_id, key, finished_at from calls where key like 'schedule:%'"
            ).fetchall()
            outputs = database.execute("select call_id, records from output_chunks").fetchall()
        self.due = Counter(float(key.rpartition(":")[2]) for _, key, _ in calls)
        self.unfinished = [key for _, key, finished_at in calls if finished_at is None]
        self.ended = [finished_at for _, _, finished_at in calls if finished_at is not None]
        ids = {call_id for call_id, _, _ in calls}
        self.failed = [records for call_id, records in outputs if call_id in ids and '"success"' not in records]

    def check(self) -> None:
        """Every due time has one run, and the latest before the next one has been made."""
        assert set(self.due.values()) <= {1}
        for due in self.due:
            count = (due - self.anchor) / PERIOD
            assert count == pytest.approx(round(count), abs=0.001)
        latest = self.next_run - PERIOD
        # A run is left out while one that was made before has not begun; that one may have ended since.
        may_be_left_out = self.unfinished or any(ended > latest for ended in self.ended)
        assert latest == pytest.approx(max(self.due, default=self.anchor), abs=0.001) or may_be_left_out
        assert not self.failed


@pytest.mark.parametrize("round", range(ROUNDS))
def test_each_due_time_has_one_run_however_often_the_server_is_killed(
    server: KillableServer, client: modal.Client, executions: Executions, round: int
) -> None:
    rng = random.Random(round)
    path = executions.path
    app = modal.App("clockwork")

    @app.function(serialized=True, schedule=modal.Period(seconds=PERIOD), keep_warm=1)
    def tick() -> None:
        import os

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"1\n")
        os.close(descriptor)

    modal.runner.deploy_app(app, client=client)
    until(lambda: executions.counts()[1] >= 1, "the first run")
    for _ in range(3):
        time.sleep(rng.uniform(0.0, 2 * PERIOD))
        server.kill()
        Journal(server).check()
        time.sleep(rng.choice([0.0, 2.5 * PERIOD]))
        before = executions.counts()[1]
        server.start()
        until(lambda: executions.counts()[1] > before, "a run after the restart")
    server.kill()
    journal = Journal(server)
    journal.check()
    assert executions.counts()[1] >= len(journal.due) - len(journal.unfinished)
