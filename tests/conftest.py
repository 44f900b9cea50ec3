"""What holds for every test: this machine's own configuration and server are out of reach."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# How quick a machine is, and how busy, is not what properties are about.
hypothesis_settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("suite")
# Else asyncio makes a loop for whoever asks whether there is one, as pytest-asyncio does, and nobody closes it.
asyncio.set_event_loop(None)
# A shell that starts the suite in the background has it ignored, and so would everything that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_NEEDED = ("runc", "buildah", "nft", "ip", "mmdebstrap")


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever forgets to choose a data directory or a configuration file gets an empty one, not the user's."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("MODAL_", "INTERMODAL_"))}
    for name in kept:
        del os.environ[name]
    away: Path = tmp_path_factory.mktemp("home")
    os.environ["INTERMODAL_DATA_DIR"] = str(away / "data")
    os.environ["MODAL_CONFIG_PATH"] = str(away / "modal.toml")
    yield
    del os.environ["INTERMODAL_DATA_DIR"], os.environ["MODAL_CONFIG_PATH"]
    os.environ.update(kept)
    assert not (away / "data").exists(), "a test used a data directory that it had not chosen"


@pytest.fixture(autouse=True)
def _machine_is_fit(request: pytest.FixtureRequest) -> None:
    """A test that needs a real machine fails with what is missing, instead of in the middle."""
    if request.node.get_closest_marker("e2e") is None:
        return
    missing = [tool for tool in _NEEDED if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.fail(f"end-to-end tests need root and {', '.join(_NEEDED)}; missing: {', '.join(missing) or 'root'}")
