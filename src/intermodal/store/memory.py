"""A store that forgets everything when it is closed, for tests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from intermodal.store.entries import DictWrite, EntryChange, NamedRecord, QueueWrite, StoredEntry, StoredItem
from intermodal.store.front_journal import KeptReply
from intermodal.store.interface import (
    RECENT,
    AppRecord,
    AppVersionRecord,
    BindingRecord,
    CallRecord,
    Change,
    EnvironmentRecord,
    EnvironmentRemoved,
    FunctionRecord,
    InputChunk,
    Json,
    Loaded,
    LogChunk,
    MountRecord,
    NamedSecretRecord,
    OpenCall,
    OutputChunk,
    RevisionRecord,
    ScheduleRecord,
    SecretRecord,
    TokenRecord,
)
from modal._wire.messages.app import AppState, LogEntry

#: The setting `database_url` that names this store.
MEMORY_URL = "memory://"


#: Where records are kept, and by what.
_TABLES = {
    EnvironmentRecord: ("_environments", "environment_id"),
    AppRecord: ("_apps", "app_id"),
    FunctionRecord: ("_functions", "function_id"),
    BindingRecord: ("_bindings", "function_id"),
    RevisionRecord: ("_revisions", "revision_id"),
    MountRecord: ("_mounts", "mount_id"),
    SecretRecord: ("_secrets", "secret_id"),
    NamedSecretRecord: ("_named_secrets", "secret_id"),
    ScheduleRecord: ("_schedules", "function_id"),
    TokenRecord: ("_tokens", "token_id"),
    CallRecord: ("_calls", "call_id"),
}


class MemoryStore:
    """`intermodal.store.interface.Store` in dictionaries."""

    def __init__(self) -> None:
        self._expired: dict[str, float] = {}  # call id -> when it had finished
        self._environments: dict[str, EnvironmentRecord] = {}
        self._apps: dict[str, AppRecord] = {}
        self._functions: dict[str, FunctionRecord] = {}
        self._bindings: dict[str, BindingRecord] = {}
        self._revisions: dict[str, RevisionRecord] = {}
        self._versions: dict[tuple[str, int], AppVersionRecord] = {}
        self._mounts: dict[str, MountRecord] = {}
        self._secrets: dict[str, SecretRecord] = {}
        self._schedules: dict[str, ScheduleRecord] = {}
        self._tokens: dict[str, TokenRecord] = {}
        self._named_secrets: dict[str, NamedSecretRecord] = {}
        self._calls: dict[str, CallRecord] = {}
        self._inputs: dict[str, list[InputChunk]] = defaultdict(list)
        self._outputs: dict[str, list[OutputChunk]] = defaultdict(list)
        self._logs: dict[str, list[LogEntry]] = defaultdict(list)
        self._named: dict[str, NamedRecord] = {}
        self._entries: dict[str, dict[bytes, StoredEntry]] = defaultdict(dict)
        self._items: dict[str, dict[tuple[str, int], StoredItem]] = defaultdict(dict)

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        done = asyncio.get_running_loop().create_future()
        for change in changes:
            self._apply(change)
        done.set_result(None)
        return done

    def _apply(self, change: Change) -> None:
        if isinstance(change, EnvironmentRemoved):
            self._remove_environment(change)
        elif isinstance(change, AppVersionRecord):
            self._versions[change.app_id, change.version] = change
        elif isinstance(change, InputChunk):
            self._inputs[change.call_id].append(change)
        elif isinstance(change, OutputChunk):
            self._outputs[change.call_id].append(change)
        elif isinstance(change, LogChunk):
            self._logs[change.app_id].extend(change.entries)
        elif isinstance(change, (DictWrite, QueueWrite, NamedRecord)):
            self._apply_entries(change)
        else:
            table, key = _TABLES[type(change)]
            getattr(self, table)[getattr(change, key)] = change

    def _apply_entries(self, change: EntryChange) -> None:
        if isinstance(change, DictWrite):
            entries = self._entries[change.dict_id]
            if change.cleared:
                entries.clear()
            for key in change.removed:
                entries.pop(key, None)
            entries.update((entry.key, replace(entry)) for entry in change.puts)
        elif isinstance(change, QueueWrite):
            items = self._items[change.queue_id]
            for at in [at for at in items if change.cleared_all or at[0] in change.cleared]:
                del items[at]
            for at in change.removed:
                items.pop(at, None)
            items.update(((item.partition, item.number), replace(item)) for item in change.puts)
        elif change.deleted:
            for table in (self._named, self._entries, self._items):
                table.pop(change.object_id, None)
        else:
            self._named[change.object_id] = change

    def write_now(self, changes: Sequence[EntryChange], reply: KeptReply | None = None) -> None:
        for change in changes:
            self._apply(change)

    def _remove_environment(self, removed: EnvironmentRemoved) -> None:
        gone = removed.environment_id
        self._environments.pop(gone, None)
        self._named_secrets = {key: one for key, one in self._named_secrets.items() if one.environment_id != gone}
        for app in self._apps.values():
            if app.environment_id == gone and app.stopped_at is None:
                self._apps[app.app_id] = replace(app, state=AppState.STOPPED.value, stopped_at=removed.at)

    def healthy(self) -> str:
        return ""

    async def load(self) -> Loaded:
        apps = {app.app_id: app for app in self._apps.values() if app.stopped_at is None}
        latest = max((call.finished_at or 0.0 for call in self._calls.values()), default=0.0)
        return Loaded(
            environments=list(self._environments.values()),
            apps=list(apps.values()),
            functions=[function for function in self._functions.values() if function.app_id in apps],
            secrets=[secret for secret in self._secrets.values() if secret.app_id in apps],
            tokens=list(self._tokens.values()),
            named_secrets=list(self._named_secrets.values()),
            calls=[
                OpenCall(call, list(self._inputs[call.call_id]), list(self._outputs[call.call_id]))
                for call in self._calls.values()
                if call.finished_at is None
            ],
            bindings=[binding for binding in self._bindings.values() if binding.app_id in apps],
            schedules=[
                schedule
                for schedule in self._schedules.values()
                if schedule.app_id in apps and schedule.next_run is not None
            ],
            last_log={app_id: self._logs[app_id][-1].seq for app_id in apps if self._logs.get(app_id)},
            recent_keys=[
                call.key for call in self._calls.values() if call.key and (call.finished_at or 0.0) > latest - RECENT
            ],
            named=list(self._named.values()),
        )

    async def function(self, function_id: str) -> FunctionRecord | None:
        return self._functions.get(function_id)

    async def mount(self, mount_id: str) -> MountRecord | None:
        return self._mounts.get(mount_id)

    async def call(self, call_id: str) -> CallRecord | None:
        return self._calls.get(call_id)

    async def call_by_key(self, key: str) -> CallRecord | None:
        return next((call for call in self._calls.values() if key and call.key == key), None)

    async def app(self, app_id: str) -> AppRecord | None:
        return self._apps.get(app_id)

    async def stopped_apps(self, limit: int) -> list[AppRecord]:
        ended = [app for app in self._apps.values() if app.stopped_at and app.state == AppState.STOPPED.value]
        return sorted(ended, key=lambda app: -(app.stopped_at or 0.0))[:limit]

    async def app_versions(self, app_id: str) -> list[AppVersionRecord]:
        return [self._versions[key] for key in sorted(self._versions) if key[0] == app_id]

    async def version_of_draft(self, draft_id: str) -> AppVersionRecord | None:
        return next((one for one in self._versions.values() if draft_id and one.draft_id == draft_id), None)

    async def revisions(self, revision_ids: Sequence[str]) -> dict[str, RevisionRecord]:
        return {one: self._revisions[one] for one in revision_ids if one in self._revisions}

    async def children(self, input_ids: Sequence[str]) -> list[CallRecord]:
        parents = set(input_ids) - {""}
        found = [call for call in self._calls.values() if call.parent_input_id in parents]
        return sorted(found, key=lambda call: (call.created_at, call.call_id))

    async def output_records(self, call_id: str, limit: int) -> list[Json]:
        return [record for chunk in self._outputs.get(call_id, ())[:limit] for record in chunk.records]

    async def outputs(self, call_id: str) -> list[OutputChunk]:
        return list(self._outputs.get(call_id, ()))

    async def dict_entries(self, dict_id: str, inline: int) -> list[StoredEntry]:
        found = self._entries[dict_id].values()
        return [replace(one, value=one.value if len(one.value or b"") <= inline else None) for one in found]

    async def dict_value(self, dict_id: str, key: bytes) -> bytes | None:
        entry = self._entries[dict_id].get(key)
        return entry.value if entry is not None else None

    async def queue_items(self, queue_id: str, inline: int) -> list[StoredItem]:
        found = sorted(self._items[queue_id].values(), key=lambda item: (item.partition, item.number))
        return [replace(one, value=one.value if len(one.value or b"") <= inline else None) for one in found]

    async def queue_values(self, queue_id: str, partition: str, numbers: Sequence[int]) -> dict[int, bytes]:
        items = self._items[queue_id]
        found = [items[partition, number] for number in numbers if (partition, number) in items]
        return {item.number: item.value or b"" for item in found}

    async def expire_entries(self, now: float) -> None:
        for entries in self._entries.values():
            for key in [key for key, entry in entries.items() if entry.expires_at < now]:
                del entries[key]

    async def logs(self, app_id: str, after: int, limit: int) -> list[LogEntry]:
        return [entry for entry in self._logs.get(app_id, ()) if entry.seq > after][:limit]

    async def expire(self, before: float, forget_before: float) -> int:
        gone = {c.call_id: c.finished_at for c in self._calls.values() if (c.finished_at or before) < before}
        for call_id, finished_at in gone.items():
            for table in (self._calls, self._inputs, self._outputs):
                table.pop(call_id, None)
            self._expired[call_id] = finished_at or before
        self._expired = {call_id: at for call_id, at in self._expired.items() if at >= forget_before}
        for app in [app for app in self._apps.values() if (app.stopped_at or before) < before]:
            del self._apps[app.app_id]
            self._logs.pop(app.app_id, None)
        self._functions = {key: one for key, one in self._functions.items() if one.app_id in self._apps}
        self._bindings = {key: one for key, one in self._bindings.items() if one.app_id in self._apps}
        self._revisions = {key: one for key, one in self._revisions.items() if one.app_id in self._apps}
        self._versions = {key: one for key, one in self._versions.items() if one.app_id in self._apps}
        self._secrets = {key: one for key, one in self._secrets.items() if one.app_id in self._apps}
        self._schedules = {key: one for key, one in self._schedules.items() if one.app_id in self._apps}
        for token in list(self._tokens.values()):
            if min(token.revoked_at or before, token.expires_at or before) < before:
                del self._tokens[token.token_id]
        for app_id, entries in self._logs.items():
            self._logs[app_id] = [entry for entry in entries if entry.at >= before]
        return len(gone)

    async def has_expired(self, call_id: str) -> bool:
        return call_id in self._expired

    async def reseal(self, convert: Callable[[str, bytes], bytes]) -> int:
        # All are converted before the first is replaced.
        secrets = {key: replace(one, sealed=convert(key, one.sealed)) for key, one in self._secrets.items()}
        named = {key: replace(one, sealed=convert(key, one.sealed)) for key, one in self._named_secrets.items()}
        self._secrets, self._named_secrets = secrets, named
        return len(secrets) + len(named)

    async def drop_mounts(self, keep: Collection[str]) -> list[str]:
        specs = [one.spec for table in (self._functions, self._revisions) for one in table.values()]
        used = {mount_id for spec in specs for mount_id in spec.get("mount_ids", ())}
        gone = [mount_id for mount_id in self._mounts if mount_id not in used and mount_id not in keep]
        for mount_id in gone:
            del self._mounts[mount_id]
        return gone

    async def drop_bindings(self, function_ids: Collection[str]) -> None:
        for function_id in function_ids:
            self._bindings.pop(function_id, None)

    async def digests(self) -> set[str]:
        files = [entry for mount in self._mounts.values() for entry in mount.files]
        chunks = [chunk for table in (self._inputs, self._outputs) for kept in table.values() for chunk in kept]
        blobs = [record["blob"] for chunk in chunks for record in chunk.records if record.get("blob")]
        values = {entry.blob_digest for entries in self._entries.values() for entry in entries.values()}
        return {item["digest"] for item in [*files, *blobs]} | (values - {""})
