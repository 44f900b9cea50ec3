"""Code in a container that asks its user: brings the container and the terminal of whoever runs the app together."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from intermodal.control.access import require_container, require_user
from intermodal.control.apps import App
from intermodal.control.calls import Calls, is_awaited, locate
from intermodal.control.fleet import Fleet
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.control.terminals import check_window, until_first
from intermodal.model.ids import new_id
from modal._wire.messages.terminal import (
    INTERACT_ATTACH,
    INTERACT_OFFER,
    InteractAttach,
    InteractOffer,
    TerminalInput,
    TerminalOutput,
    WindowSize,
)
from modal.exception import ConnectionError, InteractiveTimeoutError, InvalidError, NotFoundError

ATTACH_TIMEOUT = 60.0  #: seconds that a container waits for the terminal, once no other container has it

ClientStream = ServerStream[TerminalOutput, TerminalInput]
ContainerStream = ServerStream[TerminalInput, TerminalOutput]


@dataclass(eq=False)
class Offer:
    """A container that asks for a terminal, or has it."""

    offer_id: str
    app: App
    taken: asyncio.Future[tuple[ClientStream, WindowSize]]
    ended: asyncio.Event = field(default_factory=asyncio.Event)  #: the container needs the terminal no more
    left: asyncio.Event = field(default_factory=asyncio.Event)  #: the client that had taken it is gone


class InteractService:
    """Relays between containers that ask and clients that answer."""

    def __init__(self, fleet: Fleet, calls: Calls, rng: random.Random) -> None:
        self._fleet = fleet
        self._calls = calls
        self._rng = rng
        self._offers: dict[str, Offer] = {}

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(INTERACT_OFFER, self.offer)
        dispatcher.register(INTERACT_ATTACH, self.attach)

    async def offer(self, ctx: Context, request: InteractOffer, body: bytes, stream: ContainerStream) -> None:
        require_container(ctx)
        container = self._fleet.container(ctx.principal.container_id)
        app = container.app
        if not app.is_interactive:
            raise InvalidError(
                "modal.interact() needs an app that is run interactively: start it with `modal run --interactive`, or "
                "with `app.run(interactive=True)` inside `with modal.enable_output():`."
            )
        if container.has_terminal:
            raise InvalidError("This container is connected to a terminal already, or waits for it.")
        if self._is_awaited_at_terminal(request.input_id):
            raise InvalidError(
                "The terminal is with the function that called this one and waits for it, so it can not be had here: "
                "call modal.interact() or breakpoint() in one of the two only."
            )
        offer = Offer(new_id("te", self._rng), app, asyncio.get_running_loop().create_future())
        self._offers[offer.offer_id] = offer
        app.offers.append(offer.offer_id)
        container.has_terminal = True
        app.wake()
        try:
            client, window = await self._taken(offer)
            await stream.send(TerminalInput(window))
            await until_first(_to_client(stream, client), _to_container(client, stream), _client_leaves(offer))
        finally:
            container.has_terminal = False
            del self._offers[offer.offer_id]
            if offer.offer_id in app.offers:
                app.offers.remove(offer.offer_id)
            offer.ended.set()

    def _is_awaited_at_terminal(self, asking: str) -> bool:
        """Whether a container that has a terminal waits, directly or not, for the input that asks for one."""
        holders = self._fleet.holders()
        busy = {one.container_id for one in self._fleet.containers if one.has_terminal}
        seen: set[str] = set()
        while asking and asking not in seen:
            seen.add(asking)
            call = self._calls.live(locate(asking)[0])
            if call is None or not is_awaited(call.record):
                return False
            asking = call.record.parent_input_id
            if holders.get(asking) in busy:
                return True
        return False

    async def _taken(self, offer: Offer) -> tuple[ClientStream, WindowSize]:
        while True:
            await asyncio.wait([offer.taken], timeout=ATTACH_TIMEOUT)
            if offer.taken.done():
                return offer.taken.result()
            others = (one for one in self._offers.values() if one.app is offer.app and one is not offer)
            if not any(one.taken.done() for one in others):
                raise InteractiveTimeoutError(
                    f"No terminal was connected to the container within {ATTACH_TIMEOUT:g} seconds: the client "
                    "that runs the app is gone or busy."
                )

    async def attach(self, ctx: Context, request: InteractAttach, body: bytes, stream: ClientStream) -> None:
        require_user(ctx)
        check_window(request.window)
        offer = self._offers.get(request.offer_id)
        if offer is None or offer.taken.done():
            raise NotFoundError("The container does not ask for a terminal any more, or has one.")
        offer.app.offers.remove(offer.offer_id)
        offer.taken.set_result((stream, request.window))
        try:
            await offer.ended.wait()
        finally:
            offer.left.set()


async def _to_client(container: ContainerStream, client: ClientStream) -> None:
    async for message, data in container:
        await client.send(message, data)


async def _to_container(client: ClientStream, container: ContainerStream) -> None:
    async for message, data in client:
        if message.window is not None:
            check_window(message.window)
        await container.send(message, data)


async def _client_leaves(offer: Offer) -> None:
    await offer.left.wait()
    raise ConnectionError("The terminal was disconnected.")
