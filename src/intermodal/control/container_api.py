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
        principal = Principal("container", container_id, self._fleet.app_of(container_id))
        return self._dispatcher.adopt(principal, transport, first_frame)
