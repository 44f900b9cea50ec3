"""Schedules of deployed functions in a real server, on a clock that the tests set."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest

from intermodal.control import schedules
from intermodal.daemon import running
from intermodal.settings import Settings
from intermodal.store.failing import FailingStore
from modal import Cron, Period
from modal._serialization import serialize
from modal._wire.client import RpcClient
from modal._wire.messages.app import (
    APP_CREATE,
    APP_EVENTS,
    APP_LIST,
    APP_PUBLISH,
    APP_STOP,
    AppCreate,
    AppEvents,
    AppInfo,
    AppList,
    AppPublish,
    AppState,
    AppStop,
    AppStopReason,
    LogEntry,
)
from modal._wire.messages.function import (
    FUNCTION_CREATE,
    FunctionCreate,
    FunctionSpec,
    RetryPolicy,
    Scaling,
    Source,
    SourceKind,
)
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError
from modal.schedule import Schedule

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc).timestamp()


class World:
    """A server, its clock, a client, and what the scheduled functions have written."""

    def __init__(self, folder: Path) -> None:
        self.now = NOON
        self.store = FailingStore()
        self.marks = folder / "marks"
        self.settings = Settings(data_dir=folder / "data", port=-1, runtime="mock", builder="memory", session_grace=0.2)
        self.settings.run_dir.mkdir(parents=True)
        self.looks = 0  #: how often the server has looked at its clock

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> World:
        """Have the server look at its clock often, and count."""
        look = schedules.Schedules.look

        async def counted(one: schedules.Schedules) -> None:
            await look(one)
            self.looks += 1

        monkeypatch.setattr(schedules.Schedules, "look", counted)
        monkeypatch.setattr(schedules, "_LOOK_EVERY", 0.01)
        return self

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        async with running(self.settings, store=self.store, now=lambda: self.now):
            self.rpc = RpcClient(f"unix://{self.settings.socket}", session="se-test")
            await self.rpc.open()
            layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
            async with self.rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
                [self.image_id] = [event.done.image_id async for event, _ in events if event.done]
            try:
                yield
            finally:
                await self.rpc.close()

    async def deploy(
        self,
        schedule: Schedule | None,
        code: Callable[[], None] | None = None,
        state: AppState = AppState.DEPLOYED,
        **spec: object,
    ) -> str:
        """Deploy the app "clockwork" with one function, which leaves a mark; returns the app's id."""
        app, _ = await self.rpc.unary(APP_CREATE, AppCreate("clockwork", "main", state, "clockwork"))
        source = Source(SourceKind.SERIALIZED, qualname="tick", python=PYTHON)
        wanted = FunctionSpec("tick", source, self.image_id, schedule=schedule._spec() if schedule else {}, **spec)  # type: ignore[arg-type]
        body = serialize(code or marker(self.marks))
        handle, _ = await self.rpc.unary(FUNCTION_CREATE, FunctionCreate(app.app_id, wanted), body)
        published, _ = await self.rpc.unary(APP_PUBLISH, AppPublish(app.app_id, {"tick": handle.function_id}, state))
        return published.app_id

    def ran(self) -> int:
        return len(self.marks.read_text()) if self.marks.exists() else 0

    async def runs_become(self, count: int) -> None:
        """Wait for so many runs, then see that there are no more: the server has looked at its clock again."""
        await until(lambda: self.ran() >= count)
        await self.looked()
        assert self.ran() == count

    async def looked(self) -> None:
        """Let the loop look several times, and what it has begun get its output."""
        enough = self.looks + 2  # one may be under way
        await until(lambda: self.looks >= enough)
        await until(lambda: all(call.finished_at for call in self.store._calls.values()))

    async def info(self, app_id: str) -> AppInfo:
        infos, _ = await self.rpc.unary(APP_LIST, AppList())
        return next(one for one in infos.apps if one.app_id == app_id)

    async def log_of(self, app_id: str, enough: Callable[[str], bool]) -> str:
        """The app's output, as soon as there is enough of it."""
        entries: list[LogEntry] = []
        async with self.rpc.stream(APP_EVENTS, AppEvents(app_id, want_status=False)) as events:
            async for event, _ in events:
                entries += event.logs
                if enough(text := "".join(entry.text for entry in entries)):
                    return text
        raise AssertionError("the app ended")


def marker(path: Path) -> Callable[[], None]:
    name = str(path)

    def tick() -> None:
        with open(name, "a") as file:
            file.write(".")

    return tick


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path).watch(monkeypatch)
    async with made.server():
        yield made


@pytest.mark.parametrize("schedule", [Cron("* * * * *"), Period(minutes=1)], ids=["cron", "period"])
async def test_a_deployed_function_runs_when_it_is_due(world: World, schedule: Schedule) -> None:
    app_id = await world.deploy(schedule)
    assert (await world.info(app_id)).next_run == NOON + MINUTE
    world.now += 59
    await world.looked()
    assert world.ran() == 0
    for count in range(1, 4):
        world.now = NOON + count * MINUTE
        await world.runs_become(count)
    assert (await world.info(app_id)).next_run == NOON + 4 * MINUTE


async def test_only_deployed_functions_run(world: World) -> None:
    app_id = await world.deploy(Cron("* * * * *"), state=AppState.EPHEMERAL)
    world.now += HOUR
    await world.looked()
    assert world.ran() == 0
    assert (await world.info(app_id)).next_run is None


async def test_a_clock_that_jumps_makes_one_run_forward_and_none_back(world: World) -> None:
    app_id = await world.deploy(Cron("* * * * *"))
    world.now += 3 * DAY
    await world.runs_become(1)
    world.now += MINUTE
    await world.runs_become(2)
    world.now -= MINUTE  # the run of that minute was made
    await world.runs_become(2)
    assert (await world.info(app_id)).next_run == world.now + MINUTE
    world.now += MINUTE  # so was this one
    await world.runs_become(2)
    world.now += MINUTE
    await world.runs_become(3)


async def test_an_unchanged_schedule_keeps_its_time_over_a_deployment_and_a_changed_one_begins(world: World) -> None:
    app_id = await world.deploy(Period(hours=1))
    world.now += 40 * MINUTE
    assert await world.deploy(Period(hours=1), timeout=60.0) == app_id
    assert (await world.info(app_id)).next_run == NOON + HOUR
    await world.deploy(Period(minutes=30))
    assert (await world.info(app_id)).next_run == NOON + 70 * MINUTE
    await world.deploy(None)
    assert (await world.info(app_id)).next_run is None
    world.now += DAY
    await world.looked()
    assert world.ran() == 0


async def test_a_stopped_app_runs_nothing(world: World) -> None:
    app_id = await world.deploy(Cron("* * * * *"))
    await world.rpc.unary(APP_STOP, AppStop(app_id, AppStopReason.STOPPED_BY_USER))
    world.now += HOUR
    await world.looked()
    assert world.ran() == 0
    assert (await world.info(app_id)).next_run is None
    await world.deploy(Cron("* * * * *"))
    await world.runs_become(0)
    world.now += MINUTE
    await world.runs_become(1)


async def test_a_run_that_fails_is_tried_again_and_said_in_the_log(world: World) -> None:
    def tick() -> None:
        raise RuntimeError("no paper")

    app_id = await world.deploy(Cron("* * * * *"), tick, retries=RetryPolicy(2, 1.0, 0.0, 1.0))
    world.now += MINUTE
    text = await world.log_of(app_id, lambda text: "2026-01-01 12:01:00 UTC" in text and text.count("no paper") >= 3)
    assert text.count("RuntimeError: no paper") == 3
    assert text.count("The run of tick that was due at 2026-01-01 12:01:00 UTC (fc-") == 1
    assert ") failed" in text


async def test_runs_overlap_but_only_one_waits(world: World, tmp_path: Path) -> None:
    gate, marks = str(tmp_path / "gate"), str(world.marks)

    def tick() -> None:
        import os
        import time

        with open(marks, "a") as file:
            file.write(".")
        while not os.path.exists(gate):
            time.sleep(0.01)

    app_id = await world.deploy(Cron("* * * * *"), tick, scaling=Scaling(max_containers=2))
    for count in (1, 2):
        world.now = NOON + count * MINUTE
        await until(lambda: world.ran() == count)
    world.now = NOON + 3 * MINUTE
    await until(lambda: len(world.store._calls) == 3)
    world.now = NOON + 4 * MINUTE
    left_out = "The run of tick that was due at 2026-01-01 12:04:00 UTC is left out"
    await world.log_of(app_id, lambda text: left_out in text)
    assert len(world.store._calls) == 3
    Path(gate).touch()
    await world.runs_become(3)


async def test_a_restart_neither_loses_nor_repeats_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path).watch(monkeypatch)
    async with world.server():
        app_id = await world.deploy(Period(minutes=1))
        world.now += MINUTE
        await world.runs_become(1)
    async with world.server():
        await world.runs_become(1)
        assert (await world.info(app_id)).next_run == NOON + 2 * MINUTE
    world.now += 10.5 * MINUTE  # several were due meanwhile
    async with world.server():
        await world.runs_become(2)
        assert (await world.info(app_id)).next_run == NOON + 12 * MINUTE
    world.now -= DAY  # set back while the server was down, to before the deployment
    async with world.server():
        assert (await world.info(app_id)).next_run == world.now + MINUTE
        world.now += MINUTE
        await world.runs_become(3)


async def test_while_nothing_can_be_kept_nothing_runs_and_then_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schedules, "_RETRY_AFTER", 0.01)
    await world.deploy(Cron("* * * * *"))
    world.store.fail("the disk is full")
    world.now += MINUTE
    await until(lambda: "the disk is full" in caplog.text)
    world.now += MINUTE
    world.store.recover()
    await world.runs_become(1)
    assert caplog.text.count("scheduled functions cannot be run") == 1


async def test_a_schedule_whose_first_record_was_lost_in_a_crash_begins_after_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.server():
        app_id = await world.deploy(Period(minutes=1))
    world.store._schedules.clear()  # killed between the two writes
    world.now += HOUR
    async with world.server():
        assert (await world.info(app_id)).next_run == world.now + MINUTE


async def test_a_schedule_that_no_client_makes_is_refused(world: World) -> None:
    class Odd(Schedule):
        def _spec(self) -> dict[str, object]:
            return {"cron": "* * * * * *"}

    with pytest.raises(InvalidError, match="cron expression"):
        await world.deploy(Odd())
