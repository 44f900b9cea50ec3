"""Deployed apps: their versions, and the revisions of functions that those consist of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("apps", sa.Column("version", sa.Integer, nullable=False, server_default="0"))
    op.add_column("functions", sa.Column("revision_id", sa.String(40), nullable=False, server_default=""))
    op.create_table(
        "app_versions",
        sa.Column("app_id", sa.String(40), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("deployed_at", sa.Float(53), nullable=False),
        sa.Column("deployed_by", sa.String(256), nullable=False),
        sa.Column("client_version", sa.String(64), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.Column("revisions", sa.Text, nullable=False),
        sa.Column("draft_id", sa.String(40), nullable=False),
        sa.Column("rollback_of", sa.Integer, nullable=False),
    )
    op.create_index("app_versions_by_draft", "app_versions", ["draft_id"])
    op.create_table(
        "revisions",
        sa.Column("revision_id", sa.String(40), primary_key=True),
        sa.Column("app_id", sa.String(40), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("revisions_by_app", "revisions", ["app_id"])
