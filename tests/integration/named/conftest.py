from __future__ import annotations

from collections.abc import Iterator

import pytest
from named_server import NamedServer, succeeded


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamedServer]:
    """A server for the tests of one module."""
    made = NamedServer(tmp_path_factory.mktemp("named"))
    succeeded(made.intermodal("up"))
    yield made
    succeeded(made.intermodal("down"))
