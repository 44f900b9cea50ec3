"""Secrets that have a name in an environment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "named_secrets",
        sa.Column("secret_id", sa.String(40), primary_key=True),
        sa.Column("environment_id", sa.String(256), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("last_used_at", sa.Float(53)),
    )
    op.create_index("named_secrets_by_name", "named_secrets", ["environment_id", "name"], unique=True)
