"""Keep dicts and queues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "named",
        sa.Column("object_id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("environment_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "dict_entries",
        sa.Column("dict_id", sa.String(40), primary_key=True),
        sa.Column("key_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("blob_digest", sa.String(64), nullable=False),
        sa.Column("blob_size", sa.BigInteger, nullable=False),
    )
    op.create_index("dict_entries_by_expiry", "dict_entries", ["expires_at"])
    op.create_table(
        "queue_items",
        sa.Column("queue_id", sa.String(40), primary_key=True),
        sa.Column("partition", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
