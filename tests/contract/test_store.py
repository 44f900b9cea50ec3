"""Every store keeps what it is given, in order, and says when it cannot."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from intermodal.store.failing import FailingStore
from intermodal.store.interface import (
    AppRecord,
    AppVersionRecord,
    BindingRecord,
    CallKind,
    CallRecord,
    EnvironmentRecord,
    EnvironmentRemoved,
    FunctionRecord,
    InputChunk,
    LogChunk,
    MountRecord,
    NamedSecretRecord,
    OutputChunk,
    RevisionRecord,
    ScheduleRecord,
    SecretRecord,
    Store,
    StoreError,
    TokenRecord,
)
from intermodal.store.migrate import upgrade
from intermodal.store.schema import metadata
from intermodal.store.sql import SqlStore
from modal._wire.messages.app import LogEntry, LogStream

APP = AppRecord("ap-1", None, "hello.py", "en-main", "ephemeral", "se-1", 10.0, functions={"f": "fu-1"})
CALL = CallRecord("fc-1", "fu-1", "ap-1", CallKind.MAP, 11.0, key="se-1/k1")


async def test_what_was_written_is_loaded_back(store: Store) -> None:
    secret, function = SecretRecord("st-1", "ap-1", b"sealed"), FunctionRecord("fu-1", "ap-1", {"name": "f"}, b"code")
    first, second = InputChunk("fc-1", [{"index": 0}], b"a"), InputChunk("fc-1", [{"index": 1}], b"b")
    output = OutputChunk("fc-1", [{"index": 1, "status": "success"}], b"B")
    store.write([APP, function, secret, CALL, first, LogChunk("ap-1", [LogEntry(7, 1.0, LogStream.STDERR, "x")])])
    await store.write([second, output])
    loaded = await store.load()
    assert loaded.apps == [APP]
    assert loaded.functions == [function]
    assert loaded.secrets == [secret]
    assert loaded.last_log == {"ap-1": 7}
    [call] = loaded.calls
    assert (call.call, call.inputs, call.outputs) == (CALL, [first, second], [output])


async def test_a_record_put_again_replaces_the_earlier_one(store: Store) -> None:
    store.write([APP])
    store.write([dataclasses.replace(APP, description="one"), dataclasses.replace(APP, description="two")])
    assert [app.description for app in (await store.load()).apps] == ["two"]


async def test_tokens_are_loaded_until_they_have_been_useless_for_long_enough(store: Store) -> None:
    token = TokenRecord("ak-1", "ci", "member", b"\0hash", 10.0, "local user", "cli", 99.0, None, 11.0)
    revoked, expired = (dataclasses.replace(token, token_id=name, expires_at=None) for name in ("ak-2", "ak-3"))
    await store.write(
        [token, dataclasses.replace(revoked, revoked_at=40.0), dataclasses.replace(expired, expires_at=40.0)]
    )
    assert {one.token_id for one in (await store.load()).tokens} == {"ak-1", "ak-2", "ak-3"}
    await store.expire(50.0, 50.0)
    assert (await store.load()).tokens == [token]


async def test_bindings_are_loaded_with_their_app_until_they_are_dropped_or_expire(store: Store) -> None:
    one = BindingRecord("fu-2", "fu-1", "ap-1", b'\x00{"size":3}', {"timeout": 9.0})
    warm, other = (
        dataclasses.replace(one, function_id="fu-3", min_containers=2),
        dataclasses.replace(one, function_id="fu-4", app_id="ap-2"),
    )
    store.write([APP, dataclasses.replace(APP, app_id="ap-2"), one, warm, other])
    await store.write([dataclasses.replace(one, min_containers=1)])
    bindings = {binding.function_id: binding for binding in (await store.load()).bindings}
    assert bindings == {"fu-2": dataclasses.replace(one, min_containers=1), "fu-3": warm, "fu-4": other}
    await store.write([dataclasses.replace(APP, app_id="ap-2", stopped_at=12.0)])
    await store.drop_bindings(["fu-2", "fu-9"])
    await store.drop_bindings([])
    assert (await store.load()).bindings == [warm]
    await store.write([dataclasses.replace(APP, stopped_at=12.0)])
    await store.expire(before=20.0, forget_before=0.0)
    store.write([APP])
    assert (await store.load()).bindings == []


async def test_the_method_of_a_call_is_kept(store: Store) -> None:
    await store.write([dataclasses.replace(CALL, method="predict")])
    assert (await store.load()).calls[0].call.method == "predict"


async def test_stopped_apps_and_finished_calls_are_not_loaded(store: Store) -> None:
    await store.write([dataclasses.replace(APP, stopped_at=12.0), dataclasses.replace(CALL, finished_at=12.0)])
    loaded = await store.load()
    assert (loaded.apps, loaded.calls) == ([], [])


async def test_a_finished_call_is_found_by_id_and_key_until_it_expires(store: Store) -> None:
    finished = dataclasses.replace(CALL, finished_at=20.0)
    output = OutputChunk("fc-1", [{"index": 0}], b"x")
    await store.write([finished, output])
    assert await store.call("fc-1") == await store.call_by_key("se-1/k1") == finished
    assert await store.outputs("fc-1") == [output]
    assert await store.expire(before=20.0, forget_before=0.0) == 0
    assert not await store.has_expired("fc-1")
    assert await store.expire(before=20.5, forget_before=0.0) == 1
    assert await store.call("fc-1") is None
    assert await store.outputs("fc-1") == []
    assert await store.has_expired("fc-1")
    assert not await store.has_expired("fc-2")
    assert await store.expire(before=30.0, forget_before=25.0) == 0
    assert not await store.has_expired("fc-1")


async def test_what_stopped_apps_consisted_of_expires_and_what_live_ones_do_stays(store: Store) -> None:
    stopped = dataclasses.replace(APP, app_id="ap-2", stopped_at=15.0)
    for app in (APP, stopped):
        owner = app.app_id
        function = FunctionRecord(f"fu-{owner}", owner, {"mount_ids": [f"mo-{owner}"]})
        mount = MountRecord(f"mo-{owner}", [{"path": "/root/a.py", "digest": f"file of {owner}"}])
        lines = [LogEntry(1, 10.0, LogStream.STDOUT, "old\n"), LogEntry(2, 30.0, LogStream.STDOUT, "new\n")]
        await store.write([app, function, mount, SecretRecord(f"st-{owner}", owner, b"x"), LogChunk(owner, lines)])
    blob = {"index": 0, "size": 0, "blob": {"digest": "an input", "size": 9}}
    await store.write([CALL, InputChunk("fc-1", [blob, {"index": 1, "size": 0}], b""), MountRecord("mo-new", [])])
    assert await store.digests() == {"file of ap-1", "file of ap-2", "an input"}
    assert await store.drop_mounts({"mo-new"}) == []
    await store.expire(before=20.0, forget_before=0.0)
    assert await store.function("fu-ap-2") is None
    assert await store.function("fu-ap-1") is not None
    assert [entry.text for entry in await store.logs("ap-1", 0, 9)] == ["new\n"]
    assert await store.logs("ap-2", 0, 9) == []
    assert [secret.secret_id for secret in (await store.load()).secrets] == ["st-ap-1"]
    assert await store.drop_mounts({"mo-new"}) == ["mo-ap-2"]
    assert await store.digests() == {"file of ap-1", "an input"}
    assert await store.drop_mounts(set()) == ["mo-new"]


async def test_versions_of_a_deployed_app_are_kept_with_its_revisions(store: Store) -> None:
    app = dataclasses.replace(APP, name="service", state="deployed", version=2)
    versions = [AppVersionRecord("ap-1", n, 10.0 + n, "me", "0.1", "", {"f": f"fu-r{n}"}, f"ap-d{n}") for n in (1, 2)]
    revisions = [RevisionRecord(f"fu-r{n}", "ap-1", {"mount_ids": [f"mo-{n}"]}, b"code") for n in (1, 2)]
    mounts = [MountRecord(f"mo-{n}", []) for n in (1, 2, 3)]
    function = FunctionRecord("fu-1", "ap-1", {}, b"code", "fu-r2")
    await store.write([app, *reversed(versions), *revisions, *mounts, function])
    assert await store.app_versions("ap-1") == versions
    assert await store.version_of_draft("ap-d2") == versions[1]
    assert await store.version_of_draft("ap-d9") is None
    assert await store.version_of_draft("") is None
    assert await store.revisions(["fu-r1", "fu-r9"]) == {"fu-r1": revisions[0]}
    loaded = await store.load()
    assert (loaded.apps, loaded.functions) == ([app], [function])
    assert await store.drop_mounts(set()) == ["mo-3"]  # those of an earlier version are needed to return to it
    await store.write([dataclasses.replace(app, stopped_at=20.0, state="stopped")])
    await store.expire(before=21.0, forget_before=0.0)
    assert await store.app_versions("ap-1") == []
    assert await store.revisions(["fu-r1"]) == {}
    assert sorted(await store.drop_mounts(set())) == ["mo-1", "mo-2"]


async def test_apps_that_stopped_last_come_first_and_drafts_are_none(store: Store) -> None:
    ended = [dataclasses.replace(APP, app_id=f"ap-{n}", state="stopped", stopped_at=20.0 + n) for n in range(4)]
    draft = dataclasses.replace(APP, app_id="ap-d", state="draft", stopped_at=30.0)
    await store.write([APP, draft, *ended])
    assert await store.stopped_apps(3) == [ended[3], ended[2], ended[1]]


async def test_schedules_are_loaded_until_they_or_their_apps_end(store: Store) -> None:
    stopped = dataclasses.replace(APP, app_id="ap-2", stopped_at=15.0)
    hourly = ScheduleRecord(
        "fu-1", "ap-1", {"period": {"hours": 1, "seconds": 0.5}}, 1764_000_000.123, 1764_003_600.623
    )
    others = [ScheduleRecord("fu-2", "ap-1", {}, 1.0, None), ScheduleRecord("fu-3", "ap-2", {}, 1.0, 2.0)]
    await store.write([APP, stopped, hourly, *others])
    assert (await store.load()).schedules == [hourly]
    await store.expire(before=20.0, forget_before=0.0)
    later = dataclasses.replace(hourly, next_run=1764_007_201.123)
    await store.write([dataclasses.replace(stopped, stopped_at=None), later])
    assert (await store.load()).schedules == [later]


async def test_the_calls_that_inputs_made_are_found_oldest_first(store: Store) -> None:
    parents = [f"in-1-{index}" for index in range(1_200)]  # more than fit in one query
    late = dataclasses.replace(CALL, call_id="fc-2", parent_input_id="in-1-1100", created_at=13.0)
    early = dataclasses.replace(CALL, call_id="fc-3", parent_input_id="in-1-0", finished_at=20.0)
    other = dataclasses.replace(CALL, call_id="fc-4", parent_input_id="in-10-0")
    await store.write([CALL, late, early, other])
    assert await store.children(parents) == [early, late]
    assert await store.children([]) == await store.children([""]) == []


async def test_outputs_can_be_read_without_their_payloads(store: Store) -> None:
    chunks = [OutputChunk("fc-1", [{"index": 2 * n}, {"index": 2 * n + 1}], b"payload") for n in range(3)]
    await store.write(chunks)
    assert [record["index"] for record in await store.output_records("fc-1", 100)] == [0, 1, 2, 3, 4, 5]
    assert 2 <= len(await store.output_records("fc-1", 2)) < 6
    assert await store.output_records("fc-2", 100) == []


async def test_an_app_is_found_by_id_when_it_has_stopped_too(store: Store) -> None:
    stopped = dataclasses.replace(APP, stopped_at=12.0)
    await store.write([stopped])
    assert await store.app("ap-1") == stopped
    assert await store.app("ap-2") is None


async def test_the_keys_of_calls_that_ended_just_before_the_last_one_are_loaded(store: Store) -> None:
    ends = {"k1": 1000.0, "k2": 1290.0, "k3": 1301.0, "": 1301.0}
    calls = [dataclasses.replace(CALL, call_id=f"fc-{key}", key=key, finished_at=at) for key, at in ends.items()]
    await store.write(calls)
    assert sorted((await store.load()).recent_keys) == ["k2", "k3"]


async def test_calls_without_a_key_are_never_found_by_one(store: Store) -> None:
    await store.write([dataclasses.replace(CALL, key="")])
    assert await store.call_by_key("") is None


async def test_environments_are_loaded_back_and_renamed(store: Store) -> None:
    main, dev = EnvironmentRecord("en-main", "main", "", 1.0), EnvironmentRecord("en-1", "dev", "dev", 2.0)
    await store.write([main, dev])
    renamed = dataclasses.replace(dev, name="staging")
    await store.write([renamed])
    assert sorted((await store.load()).environments, key=lambda one: one.created_at) == [main, renamed]


async def test_an_environment_goes_with_all_that_is_in_it(store: Store) -> None:
    main, dev = EnvironmentRecord("en-main", "main", "", 1.0), EnvironmentRecord("en-1", "dev", "dev", 2.0)
    of_it = dataclasses.replace(APP, app_id="ap-2", environment_id="en-1")
    stopped_before = dataclasses.replace(of_it, app_id="ap-3", stopped_at=5.0)
    again = EnvironmentRecord("en-2", "dev", "dev", 3.0)
    # Written together: what is written after the removal is not part of it.
    store.write([main, dev, APP, of_it, stopped_before])
    await store.write([EnvironmentRemoved("en-1", 9.0), again])
    loaded = await store.load()
    assert {one.environment_id for one in loaded.environments} == {"en-main", "en-2"}
    assert loaded.apps == [APP]
    assert await store.app("ap-2") == dataclasses.replace(of_it, state="stopped", stopped_at=9.0)
    assert await store.app("ap-3") == stopped_before


NAMED = NamedSecretRecord("sr-1", "en-main", "token", b"sealed", 1.0)


async def test_named_secrets_are_loaded_back_and_go_with_their_environment(store: Store) -> None:
    other = NamedSecretRecord("sr-2", "en-1", "token", b"other", 2.0, 3.0)
    await store.write([NAMED, other])
    used = dataclasses.replace(NAMED, sealed=b"again", last_used_at=5.0)
    await store.write([used])
    assert sorted((await store.load()).named_secrets, key=lambda one: one.secret_id) == [used, other]
    await store.write([EnvironmentRemoved("en-1", 9.0)])
    assert (await store.load()).named_secrets == [used]
    await store.expire(before=100.0, forget_before=0.0)
    assert (await store.load()).named_secrets == [used]


async def test_every_secret_is_sealed_anew_or_none(store: Store) -> None:
    of_stopped = SecretRecord("st-2", "ap-2", b"two")
    stopped = dataclasses.replace(APP, app_id="ap-2", stopped_at=5.0)
    await store.write([APP, stopped, SecretRecord("st-1", "ap-1", b"one"), of_stopped])
    store.write([NAMED])  # not committed yet
    seen = []

    def convert(secret_id: str, sealed: bytes) -> bytes:
        seen.append((secret_id, sealed))
        return b"new " + sealed

    def fail(secret_id: str, sealed: bytes) -> bytes:
        if secret_id == "sr-1":
            raise StoreError("This one cannot be opened.")
        return b"lost"

    with pytest.raises(StoreError, match="cannot be opened"):
        await store.reseal(fail)
    assert await store.reseal(convert) == 3
    assert sorted(seen) == [("sr-1", b"sealed"), ("st-1", b"one"), ("st-2", b"two")]
    loaded = await store.load()
    assert [one.sealed for one in loaded.named_secrets] == [b"new sealed"]
    assert [one.sealed for one in loaded.secrets] == [b"new one"]
    assert store.healthy() == ""


async def test_logs_are_read_from_after_a_sequence_number(store: Store) -> None:
    entries = [LogEntry(seq, 1.5, LogStream.STDOUT, f"line {seq}\0\n", "fu-1", "ta-1", "") for seq in range(1, 6)]
    await store.write([LogChunk("ap-1", entries)])
    got = await store.logs("ap-1", after=2, limit=2)
    assert [entry.seq for entry in got] == [3, 4]
    assert got[0].stream is LogStream.STDOUT
    assert await store.logs("ap-2", after=0, limit=10) == []


async def test_mounts_are_found_by_id(store: Store) -> None:
    mount = MountRecord("mo-1", [{"path": "/root/a.py"}])
    await store.write([mount])
    assert await store.mount("mo-1") == mount
    assert await store.mount("mo-2") is None


class Breakable:
    """A store and what makes its writes fail and succeed again."""

    def __init__(self, store: Store, fail: Callable[[], None], recover: Callable[[], None]) -> None:
        self.store, self.fail, self.recover = store, fail, recover


@pytest.fixture(params=["failing", "sqlite"])
async def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Breakable]:
    if request.param == "failing":
        failing = FailingStore()
        yield Breakable(failing, lambda: failing.fail("The database failed: no space is left."), failing.recover)
        return
    url = f"sqlite:///{tmp_path}/state.db"
    store, engine = SqlStore(url, tmp_path / "journal"), create_engine(url)
    await store.open()

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    yield Breakable(
        store,
        lambda: run("ALTER TABLE calls RENAME TO calls_away"),
        lambda: run("ALTER TABLE calls_away RENAME TO calls"),
    )
    await store.close()
    engine.dispose()


async def test_what_cannot_be_written_is_reported_and_written_once_that_is_possible(breakable: Breakable) -> None:
    store = breakable.store
    breakable.fail()
    with pytest.raises(StoreError, match="The database failed"):
        await store.write([CALL, InputChunk("fc-1", [{"index": 0}], b"a")])
    assert "The database failed" in store.healthy()
    with pytest.raises(StoreError):
        await store.write([OutputChunk("fc-1", [{"index": 0, "status": "success"}], b"A")])
    breakable.recover()
    async with asyncio.timeout(10):
        while store.healthy():
            await asyncio.sleep(0.01)
    await store.write([InputChunk("fc-1", [{"index": 1}], b"b")])
    [call] = (await store.load()).calls
    assert call.call == CALL
    assert [chunk.body for chunk in call.inputs] == [b"a", b"b"]
    assert [chunk.body for chunk in call.outputs] == [b"A"]


async def test_what_can_never_be_written_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db", tmp_path / "journal")
    await store.open()
    store.write([dataclasses.replace(APP, app_id="ap-2", description="half a \ud800 character")])
    with pytest.raises(StoreError, match="cannot be stored"):
        await store.write([APP])
    assert store.healthy() == ""
    assert (await store.load()).apps == [APP]
    await store.close()


async def test_a_store_that_cannot_write_still_closes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store, engine = SqlStore(url, tmp_path / "journal"), create_engine(url)
    await store.open()
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE apps"))
    store.write([APP])
    async with asyncio.timeout(10):
        await store.close()
    engine.dispose()


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = SqlStore(url, tmp_path / "journal")
    await store.open()
    await store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    newer = SqlStore(url, tmp_path / "journal")
    with pytest.raises(StoreError, match="newer than this program"):
        await newer.open()
    await newer.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_apps_of_before_environments_keep_theirs(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql_database")
    engine = create_engine(url)
    names = {"ap-1": "main", "ap-2": "dev", "ap-3": "Dev", "ap-4": "no name!", "ap-5": "dev"}
    with engine.begin() as connection:
        upgrade(connection, "0004")
        for app_id, name in names.items():
            connection.execute(
                text("INSERT INTO apps VALUES (:id, NULL, 'x', :name, 'ephemeral', 'se-1', 1.0, NULL, '{}')"),
                {"id": app_id, "name": name},
            )
    engine.dispose()
    store = SqlStore(url, tmp_path / "journal")
    await store.open()
    loaded = await store.load()
    await store.close()
    called = {one.environment_id: one.name for one in loaded.environments} | {"en-main": "main"}
    assert {app.app_id: called[app.environment_id] for app in loaded.apps} == names | {"ap-4": "main"}
    assert len({one.web_suffix for one in loaded.environments}) == 2


async def test_the_migrations_lead_to_the_declared_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = SqlStore(url, tmp_path / "journal")
    await store.open()
    await store.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
