from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_server import AccessServer, access_server


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccessServer]:
    async with access_server(tmp_path, monkeypatch) as one:
        yield one
