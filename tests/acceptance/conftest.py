"""One server for the whole suite, with a data directory of its own, and the check that nothing of it stays behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_harness import Platform, Program, wait_until


@pytest.fixture(scope="session")
def _platform() -> Iterator[Platform]:
    # A short path, since those of Unix sockets are limited.
    folder = Path(tempfile.mkdtemp(prefix="im-"))
    platform = Platform(folder / "d", session_grace="3", stop_grace="3")
    try:
        platform.intermodal("up").succeeded()
        yield platform
        platform.intermodal("down").succeeded()
        # The kernel takes network interfaces and cgroups away a moment after their last process.
        wait_until(lambda: not platform.leftovers(), "the server to leave nothing", 5)
    finally:
        if platform.server() is not None:
            platform.intermodal("down", "--force")
        left = platform.leftovers()
        shutil.rmtree(folder, ignore_errors=bool(left))
    assert left == []


@pytest.fixture
def platform(_platform: Platform) -> Iterator[Platform]:
    """The shared platform, whose server runs and holds no app's containers from an earlier test."""
    if _platform.server() is None:
        _platform.intermodal("up").succeeded()
    yield _platform
    wait_until(lambda: _platform.server() is None or not _platform.containers(), "the containers to be gone", 30)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Writes the user's files: `program(text, name)`."""
    return Program(tmp_path)


@pytest.fixture
def volume(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """The name of a new volume."""
    name = f"v-{tmp_path.name}"[-60:]
    platform.modal("volume", "create", name).succeeded()
    yield name
    platform.modal("volume", "delete", name, "--yes")
