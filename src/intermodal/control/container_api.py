"""RPC for code in containers: the same handlers, with the container as the caller."""

from __future__ import annotations

import asyncio

from intermodal.control.fleet import Fleet
from intermodal.control.rpc import Dispatcher, Principal


class ContainerCalls:
    """Implements `intermodal.node.interface.ContainerApi`."""

    def __init__(self, dispatcher: Dispatcher, fleet: Fleet) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet

    def accept(self, container_id: str, transport: asyncio.Transport, first_frame: bytes) -> asyncio.Protocol:
        app = self._fleet.app_of(container_id)
        ids = (app.app_id, app.environment.environment_id) if app is not None else ("", "")
        principal = Principal("container", container_id, *ids)
        return self._dispatcher.adopt(principal, transport, first_frame)
