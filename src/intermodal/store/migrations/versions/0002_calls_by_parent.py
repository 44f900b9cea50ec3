"""Find the calls that an input made, for call graphs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    nested = sa.text("parent_input_id <> ''")
    op.create_index("calls_by_parent", "calls", ["parent_input_id"], sqlite_where=nested, postgresql_where=nested)
