from __future__ import annotations

import pytest
from wire_harness import CARRIERS, Server

from intermodal.control.rpc import Dispatcher


@pytest.fixture(params=CARRIERS)
async def server(request, tmp_path):
    server = Server(request.param, tmp_path, Dispatcher())
    await server.start()
    yield server
    await server.stop()
    assert not server.dispatcher.tasks, "handlers were left running"
    assert not server.dispatcher.running
