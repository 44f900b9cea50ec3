"""Records to table rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from intermodal.store import schema
from intermodal.store.interface import (
    AppRecord,
    AppVersionRecord,
    BindingRecord,
    CallKind,
    CallRecord,
    EnvironmentRecord,
    FunctionRecord,
    InputChunk,
    LogChunk,
    MountRecord,
    NamedSecretRecord,
    OutputChunk,
    Put,
    RevisionRecord,
    ScheduleRecord,
    SecretRecord,
    TokenRecord,
)
from modal._wire.messages.app import LogEntry, LogStream

Row = dict[str, Any]


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def rows_of(change: Put) -> tuple[Table, list[Row]]:
    """The table a change belongs to and the rows to write there."""
    if isinstance(change, CallRecord):
        row = dict(vars(change))
        row.update(kind=change.kind.value, inputs_closed=int(change.inputs_closed))
        return schema.calls, [row]
    if isinstance(change, (InputChunk, OutputChunk)):
        table = schema.input_chunks if isinstance(change, InputChunk) else schema.output_chunks
        return table, [{"call_id": change.call_id, "records": _dump(change.records), "body": change.body}]
    if isinstance(change, LogChunk):
        return schema.logs, [
            {
                "app_id": change.app_id,
                "seq": entry.seq,
                "at": entry.at,
                "stream": entry.stream.value,
                # PostgreSQL text cannot hold NUL, and a program may print one.
                "text": entry.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),
                "function_id": entry.function_id,
                "container_id": entry.container_id,
                "input_id": entry.input_id,
            }
            for entry in change.entries
        ]
    if isinstance(change, EnvironmentRecord):
        return schema.environments, [dict(vars(change))]
    if isinstance(change, AppRecord):
        return schema.apps, [dict(vars(change), functions=_dump(change.functions))]
    if isinstance(change, FunctionRecord):
        return schema.functions, [dict(vars(change), spec=_dump(change.spec))]
    if isinstance(change, BindingRecord):
        return schema.bindings, [dict(vars(change), overrides=_dump(change.overrides))]
    if isinstance(change, RevisionRecord):
        return schema.revisions, [dict(vars(change), spec=_dump(change.spec))]
    if isinstance(change, AppVersionRecord):
        return schema.app_versions, [dict(vars(change), revisions=_dump(change.revisions))]
    if isinstance(change, MountRecord):
        return schema.mounts, [dict(vars(change), files=_dump(change.files))]
    if isinstance(change, ScheduleRecord):
        return schema.schedules, [dict(vars(change), spec=_dump(change.spec))]
    if isinstance(change, TokenRecord):
        return schema.tokens, [dict(vars(change))]
    if isinstance(change, NamedSecretRecord):
        return schema.named_secrets, [dict(vars(change))]
    return schema.secrets, [dict(vars(change))]


def environment_of(row: Mapping[str, Any]) -> EnvironmentRecord:
    return EnvironmentRecord(**row)


def app_of(row: Mapping[str, Any]) -> AppRecord:
    return AppRecord(**{**row, "functions": json.loads(row["functions"])})


def function_of(row: Mapping[str, Any]) -> FunctionRecord:
    return FunctionRecord(**{**row, "spec": json.loads(row["spec"]), "body": bytes(row["body"])})


def revision_of(row: Mapping[str, Any]) -> RevisionRecord:
    return RevisionRecord(**{**row, "spec": json.loads(row["spec"]), "body": bytes(row["body"])})


def app_version_of(row: Mapping[str, Any]) -> AppVersionRecord:
    return AppVersionRecord(**{**row, "revisions": json.loads(row["revisions"])})


def binding_of(row: Mapping[str, Any]) -> BindingRecord:
    return BindingRecord(**{**row, "parameters": bytes(row["parameters"]), "overrides": json.loads(row["overrides"])})


def mount_of(row: Mapping[str, Any]) -> MountRecord:
    return MountRecord(row["mount_id"], json.loads(row["files"]))


def secret_of(row: Mapping[str, Any]) -> SecretRecord:
    return SecretRecord(row["secret_id"], row["app_id"], bytes(row["sealed"]))


def token_of(row: Mapping[str, Any]) -> TokenRecord:
    return TokenRecord(**{**row, "secret_hash": bytes(row["secret_hash"])})


def named_secret_of(row: Mapping[str, Any]) -> NamedSecretRecord:
    return NamedSecretRecord(**{**row, "sealed": bytes(row["sealed"])})


def call_of(row: Mapping[str, Any]) -> CallRecord:
    return CallRecord(**{**row, "kind": CallKind(row["kind"]), "inputs_closed": bool(row["inputs_closed"])})


def input_chunk_of(row: Mapping[str, Any]) -> InputChunk:
    return InputChunk(row["call_id"], json.loads(row["records"]), bytes(row["body"]))


def output_chunk_of(row: Mapping[str, Any]) -> OutputChunk:
    return OutputChunk(row["call_id"], json.loads(row["records"]), bytes(row["body"]))


def schedule_of(row: Mapping[str, Any]) -> ScheduleRecord:
    return ScheduleRecord(**{**row, "spec": json.loads(row["spec"])})


def log_of(row: Mapping[str, Any]) -> LogEntry:
    fields = {name: value for name, value in row.items() if name != "app_id"}
    return LogEntry(**{**fields, "stream": LogStream(row["stream"])})
