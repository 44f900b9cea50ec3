"""Giving this process's terminal to a container that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _terminal
from ._output import output
from ._wire.messages.terminal import INTERACT_ATTACH, InteractAttach
from .exception import ConnectionError, NotFoundError

if TYPE_CHECKING:
    from ._wire.client import RpcClient


async def lend_terminal(rpc: RpcClient, offer_id: str) -> None:
    """Connect the terminal with the container that made the offer, until that is done with it.

    Output of this process is held back meanwhile.
    """
    window = _terminal.window_size()
    lost = ""
    with output().held_back(), _terminal.raw_mode():
        try:
            async with rpc.stream(INTERACT_ATTACH, InteractAttach(offer_id, window)) as stream:
                await _terminal.connect(stream, window)
        except NotFoundError:
            pass  # the code that asked has gone on, or has ended
        except ConnectionError:
            lost = "The connection to the server was lost, and the terminal's connection to the container with it."
        except BrokenPipeError:
            lost = "Nobody reads what the container writes to the terminal: the connection was ended."
    if lost:
        output().message(lost)
