"""Environments, and apps that refer to theirs by id."""

from __future__ import annotations

import hashlib
import re
import time

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MAIN = "en-main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def upgrade() -> None:
    environments = op.create_table(
        "environments",
        sa.Column("environment_id", sa.String(256), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("web_suffix", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_index("environments_by_name", "environments", ["name"], unique=True)
    op.alter_column("apps", "environment", new_column_name="environment_id")
    # Names were not checked before: what is no name of an environment belongs to the default one.
    connection = op.get_bind()
    used = sorted(connection.execute(sa.text("SELECT DISTINCT environment_id FROM apps")).scalars())
    suffixes: set[str] = set()
    for name in used:
        environment_id = _MAIN
        if name != "main" and _NAME.fullmatch(name):
            environment_id = f"en-{hashlib.sha256(name.encode()).hexdigest()[:22]}"
            suffix = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            while suffix in suffixes:
                suffix += "-2"
            suffixes.add(suffix)
            row = {"environment_id": environment_id, "name": name, "web_suffix": suffix, "created_at": time.time()}
            op.bulk_insert(environments, [row])
        statement = sa.text("UPDATE apps SET environment_id = :new WHERE environment_id = :old")
        connection.execute(statement, {"new": environment_id, "old": name})
