"""Remember for a while which calls have expired, and find logs by age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expired_calls",
        sa.Column("call_id", sa.String(40), primary_key=True),
        sa.Column("finished_at", sa.Float(53), nullable=False),
    )
    op.create_index("logs_by_age", "logs", ["at"])
