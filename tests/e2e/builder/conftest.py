"""Real builds: buildah, the base from the machine's cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes import Blobs, Secrets

from intermodal.builder.builder import BuildahBuilder
from intermodal.runtimes.cgroups import Cgroups, data_key

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data directory for all tests, so that the base is built once."""
    path = tmp_path_factory.mktemp("builder")
    yield path
    mounts = Path("/proc/mounts").read_text()
    assert str(path) not in mounts, "a mount was left behind"
    assert Cgroups(f"/intermodal/{data_key(path)}-builds").names() == set(), "a cgroup was left behind"
    shutil.rmtree(path)


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
async def builder(data: Path, blobs: Blobs, secrets: Secrets) -> AsyncIterator[BuildahBuilder]:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("needs root and buildah")
    builder = BuildahBuilder(data, blobs, secrets, registry=False)
    await builder.open()
    yield builder
    await builder.close()
    left = list((data / "run" / "builds").glob("*"))
    assert left == [], "a build left files behind"
