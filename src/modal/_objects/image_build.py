"""Having the server build an image, and showing how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from .._output import Step, output
from .._wire.messages.image import IMAGE_BUILD, ImageInfo, ImageSpec
from ..exception import ConnectionError, RemoteError

if TYPE_CHECKING:
    from .._upload import Client

_ATTEMPTS = 3


async def build(client: Client, spec: ImageSpec) -> ImageInfo:
    """Build `spec`, or find it built. A build goes on at the server when the connection breaks, so it is joined again.

    Raises:
        RemoteError: a step failed; the message holds the command and the end of its output.
        InvalidError: the spec cannot be built on this server.
        ConnectionError: the connection broke too often.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return await _build_once(client, spec)
        except ConnectionError:
            output().message("The connection broke during the image build; joining it again.")
    return await _build_once(client, spec)


async def _build_once(client: Client, spec: ImageSpec) -> ImageInfo:
    step: Optional[Step] = None
    try:
        async with client.stream(IMAGE_BUILD, spec) as stream:
            async for event, _ in stream:
                if event.step:
                    if step is not None:
                        step.done()
                    step = output().step(event.step)
                if event.log and step is not None:
                    step.log(event.log)
                if event.done is not None:
                    if step is not None:
                        step.done()
                    info: ImageInfo = event.done
                    return info
    except BaseException as error:
        if step is not None:
            step.fail(str(error).partition("\n")[0])
        raise
    raise RemoteError("The image build ended without a result; see the server's log.")
