"""Brings a database to the current schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from intermodal.store.interface import StoreError

_MIGRATIONS = Path(__file__).with_name("migrations")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that the database lacks up to `revision`, in the caller's transaction.

    Raises:
        StoreError: the database was made by a newer version of this program.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise StoreError(
            f"The database has schema version {current}, which is newer than this program knows "
            f"({scripts.get_current_head()}). Upgrade intermodal, or use another data directory."
        )
    if current == scripts.get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
