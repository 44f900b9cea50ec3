"""Every store, and a real PostgreSQL cluster, made anew and thrown away."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from intermodal.store.failing import FailingStore
from intermodal.store.interface import Store
from intermodal.store.memory import MemoryStore
from intermodal.store.sql import SqlStore


def _run(*command: object) -> None:
    """PostgreSQL refuses to run as root, so its own user does."""
    subprocess.run(["runuser", "-u", "postgres", "--", *map(str, command)], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Path]:
    """The directory of the cluster's socket."""
    [binaries, *_] = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    base = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    shutil.chown(base, "postgres")
    data = base / "data"
    try:
        _run(binaries / "initdb", "-D", data, "--auth=trust", "--no-sync", "-U", "test")
        options = f"-c listen_addresses= -c unix_socket_directories={base} -c fsync=off"
        _run(binaries / "pg_ctl", "-D", data, "-w", "-l", base / "log", "-o", options, "start")
        yield base
        _run(binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(base)


@pytest.fixture
def postgresql_database(postgresql_cluster: Path) -> Iterator[str]:
    """The URL of a new, empty database."""
    admin = create_engine(
        f"postgresql+psycopg://test@/postgres?host={postgresql_cluster}", isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE contract"))
    yield f"postgresql+psycopg://test@/contract?host={postgresql_cluster}"
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE contract WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["memory", "failing", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore()
    if request.param == "failing":
        made = FailingStore()
    elif request.param == "sqlite":
        made = SqlStore(f"sqlite:///{tmp_path}/state.db", tmp_path / "journal")
    elif request.param == "postgresql":
        made = SqlStore(request.getfixturevalue("postgresql_database"), tmp_path / "journal")
    await made.open()
    yield made
    await made.close()
