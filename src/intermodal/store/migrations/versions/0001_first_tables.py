"""First tables: apps, functions, mounts, secrets, calls with their inputs and outputs, logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("app_id", sa.String(40), primary_key=True),
        sa.Column("name", sa.String(256)),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("environment", sa.String(256), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("stopped_at", sa.Float(53)),
        sa.Column("functions", sa.Text, nullable=False),
    )
    op.create_table(
        "functions",
        sa.Column("function_id", sa.String(40), primary_key=True),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("functions_by_app", "functions", ["app_id"])
    op.create_table(
        "mounts",
        sa.Column("mount_id", sa.String(80), primary_key=True),
        sa.Column("files", sa.Text, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("secret_id", sa.String(40), primary_key=True),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("secrets_by_app", "secrets", ["app_id"])
    op.create_table(
        "calls",
        sa.Column("call_id", sa.String(40), primary_key=True),
        sa.Column("function_id", sa.String(40), nullable=False),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("parent_input_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("inputs_closed", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Float(53)),
    )
    op.create_index("calls_by_key", "calls", ["key"])
    op.create_index("calls_by_finished", "calls", ["finished_at"])
    for name in ("input_chunks", "output_chunks"):
        op.create_table(
            name,
            sa.Column("id", _ID, primary_key=True, autoincrement=True),
            sa.Column("call_id", sa.String(40), nullable=False),
            sa.Column("records", sa.Text, nullable=False),
            sa.Column("body", sa.LargeBinary, nullable=False),
        )
        op.create_index(f"{name}_by_call", name, ["call_id"])
    op.create_table(
        "logs",
        sa.Column("app_id", sa.String(40), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("stream", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("function_id", sa.String(40), nullable=False),
        sa.Column("container_id", sa.String(40), nullable=False),
        sa.Column("input_id", sa.String(64), nullable=False),
    )
