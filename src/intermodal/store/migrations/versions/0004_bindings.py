"""Functions that serve one set of parameters of a class, and which method a call is of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bindings",
        sa.Column("function_id", sa.String(40), primary_key=True),
        sa.Column("class_id", sa.String(40), nullable=False),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("parameters", sa.LargeBinary, nullable=False),
        sa.Column("overrides", sa.Text, nullable=False),
        sa.Column("min_containers", sa.Integer),
    )
    op.create_index("bindings_by_app", "bindings", ["app_id"])
    op.add_column("calls", sa.Column("method", sa.String(256), nullable=False, server_default=""))
