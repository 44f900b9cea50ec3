from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from node_fixtures import Site, make_layer, open_site


@pytest.fixture(scope="session")
def node_data() -> Iterator[Path]:
    """A data directory with a root file system in `storage/base`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    data = Path(tempfile.mkdtemp(prefix="intermodal-node-"))
    (data / "blobs").mkdir()
    layer = data / "storage" / "base"
    layer.mkdir(parents=True)
    make_layer(layer)
    yield data
    shutil.rmtree(data)


@pytest.fixture
def runner_home() -> Iterator[Path]:
    """A directory that root of a container can reach."""
    home = Path(tempfile.mkdtemp(prefix="intermodal-sdk-", dir="/run"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


@pytest.fixture
async def site(node_data: Path, runner_home: Path) -> AsyncIterator[Site]:
    async with open_site(node_data, runner_home) as site:
        yield site
