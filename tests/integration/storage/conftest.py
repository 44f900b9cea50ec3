"""A server that keeps dicts and queues in a file, and a queue of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from real_server import RealServer

import modal


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"database_url": f"sqlite:///{tmp_path_factory.mktemp('database')}/state.db"}


@pytest.fixture
def shared(real_server: RealServer) -> Iterator[modal.Queue]:
    with modal.Queue.ephemeral() as one:
        yield one
