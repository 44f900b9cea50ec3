"""Where the schedules of deployed functions are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("function_id", sa.String(40), primary_key=True),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("anchor", sa.Float(53), nullable=False),
        sa.Column("next_run", sa.Float(53)),
    )
    op.create_index("schedules_by_app", "schedules", ["app_id"])
