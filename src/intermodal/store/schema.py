"""The tables. Alembic's migrations must lead here; tests/contract/test_store.py compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

metadata = MetaData()

#: SQLite only gives INTEGER PRIMARY KEY columns their own numbers.
BigId = BigInteger().with_variant(Integer, "sqlite")

environments = Table(
    "environments",
    metadata,
    Column("environment_id", String(256), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("web_suffix", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Index("environments_by_name", "name", unique=True),
)

apps = Table(
    "apps",
    metadata,
    Column("app_id", String(40), primary_key=True),
    Column("name", String(256)),
    Column("description", Text, nullable=False),
    Column("environment_id", String(256), nullable=False),
    Column("state", String(32), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("stopped_at", Float(53)),
    Column("functions", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="0"),
)

app_versions = Table(
    "app_versions",
    metadata,
    Column("app_id", String(40), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("deployed_at", Float(53), nullable=False),
    Column("deployed_by", String(256), nullable=False),
    Column("client_version", String(64), nullable=False),
    Column("tag", String(64), nullable=False),
    Column("revisions", Text, nullable=False),
    Column("draft_id", String(40), nullable=False),
    Column("rollback_of", Integer, nullable=False),
    Index("app_versions_by_draft", "draft_id"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("revision_id", String(40), primary_key=True),
    Column("app_id", String(40), nullable=False),
    Column("spec", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("revisions_by_app", "app_id"),
)

functions = Table(
    "functions",
    metadata,
    Column("function_id", String(40), primary_key=True),
    Column("app_id", String(40), nullable=False),
    Column("spec", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("revision_id", String(40), nullable=False, server_default=""),
    Index("functions_by_app", "app_id"),
)

bindings = Table(
    "bindings",
    metadata,
    Column("function_id", String(40), primary_key=True),
    Column("class_id", String(40), nullable=False),
    Column("app_id", String(40), nullable=False),
    Column("parameters", LargeBinary, nullable=False),
    Column("overrides", Text, nullable=False),
    Column("min_containers", Integer),
    Index("bindings_by_app", "app_id"),
)

mounts = Table(
    "mounts",
    metadata,
    Column("mount_id", String(80), primary_key=True),
    Column("files", Text, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("secret_id", String(40), primary_key=True),
    Column("app_id", String(40), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index("secrets_by_app", "app_id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(40), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("role", String(16), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("source", String(100), nullable=False),
    Column("expires_at", Float(53)),
    Column("revoked_at", Float(53)),
    Column("last_used_at", Float(53)),
)

named_secrets = Table(
    "named_secrets",
    metadata,
    Column("secret_id", String(40), primary_key=True),
    Column("environment_id", String(256), nullable=False),
    Column("name", String(64), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("last_used_at", Float(53)),
    Index("named_secrets_by_name", "environment_id", "name", unique=True),
)

calls = Table(
    "calls",
    metadata,
    Column("call_id", String(40), primary_key=True),
    Column("function_id", String(40), nullable=False),
    Column("app_id", String(40), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("parent_input_id", String(64), nullable=False),
    Column("key", String(200), nullable=False),
    Column("inputs_closed", Integer, nullable=False),
    Column("finished_at", Float(53)),
    Column("method", String(256), nullable=False, server_default=""),
    Index("calls_by_key", "key"),
    Index("calls_by_finished", "finished_at"),
    # Only calls made by inputs are in it: others do not pay for it.
    Index(
        "calls_by_parent",
        "parent_input_id",
        sqlite_where=text("parent_input_id <> ''"),
        postgresql_where=text("parent_input_id <> ''"),
    ),
)

input_chunks = Table(
    "input_chunks",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("call_id", String(40), nullable=False),
    Column("records", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("input_chunks_by_call", "call_id"),
)

output_chunks = Table(
    "output_chunks",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("call_id", String(40), nullable=False),
    Column("records", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("output_chunks_by_call", "call_id"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("function_id", String(40), primary_key=True),
    Column("app_id", String(40), nullable=False),
    Column("spec", Text, nullable=False),
    Column("anchor", Float(53), nullable=False),
    Column("next_run", Float(53)),
    Index("schedules_by_app", "app_id"),
)

expired_calls = Table(
    "expired_calls",
    metadata,
    Column("call_id", String(40), primary_key=True),
    Column("finished_at", Float(53), nullable=False),
)

logs = Table(
    "logs",
    metadata,
    Column("app_id", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("stream", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("function_id", String(40), nullable=False),
    Column("container_id", String(40), nullable=False),
    Column("input_id", String(64), nullable=False),
    Index("logs_by_age", "at"),
)

named = Table(
    "named",
    metadata,
    Column("object_id", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("environment_id", String(40), nullable=False),
    Column("name", String(256), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
)

dict_entries = Table(
    "dict_entries",
    metadata,
    Column("dict_id", String(40), primary_key=True),
    Column("key_hash", LargeBinary(32), primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary),
    Column("expires_at", Float(53), nullable=False),
    Column("blob_digest", String(64), nullable=False),
    Column("blob_size", BigInteger, nullable=False),
    Index("dict_entries_by_expiry", "expires_at"),
)

queue_items = Table(
    "queue_items",
    metadata,
    Column("queue_id", String(40), primary_key=True),
    Column("partition", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)
