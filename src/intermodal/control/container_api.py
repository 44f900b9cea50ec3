"""RPC for code in containers: the same handlers, with the container as the caller."""

from __future__ import annotations

import asyncio

from intermodal.control.fleet import Fleet
from intermodal.control.rpc import Dispatcher, Principal
from intermodal.control.tokens import Tokens


class ContainerCalls:
    """Implements `intermodal.node.interface.ContainerApi`."""

    def __init__(self, dispatcher: Dispatcher, fleet: Fleet, tokens: Tokens) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._tokens = tokens

    def accept(self, container_id: str, transport: asyncio.Transport, first_frame: bytes) -> asyncio.Protocol:
        app = self._fleet.app_of(container_id)
        ids = (app.app_id, app.environment.environment_id) if app is not None else ("", "")
        principal = Principal("container", container_id, *ids)
        # A program may act for someone else, with a token that it was given.
        authenticate = self._tokens.authenticator(f"container {container_id}", principal)
        return self._dispatcher.adopt(authenticate, transport, first_frame)
