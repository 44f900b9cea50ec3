"""`intermodal volume`: checks of what volumes hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from intermodal.model.ids import new_id
from intermodal.settings import Settings
from modal._wire.client import RpcClient
from modal._wire.messages.files import VOLUME_VERIFY, VolumeRef
from modal._wire.messages.named import NAMED_LIST, NamedList, ObjectKind
from modal.exception import ConnectionError, NotFoundError


def verify(settings: Settings, names: Sequence[str], environment: str) -> int:
    """Check volumes and say what is wrong with them; returns the exit code.

    Raises:
        ConnectionError: no server runs.
        NotFoundError: there is no volume of a name.
    """
    return asyncio.run(_verify(settings, names, environment))


async def _verify(settings: Settings, names: Sequence[str], environment: str) -> int:
    import random

    session = new_id("se", random.SystemRandom())
    client = RpcClient(f"unix://{settings.socket}", session=session, connect_timeout=0, reconnect_timeout=0)
    try:
        reply, _ = await client.unary(NAMED_LIST, NamedList(ObjectKind.VOLUME, environment))
        known = {one.name: one.object_id for one in reply.objects}
        if unknown := [name for name in names if name not in known]:
            raise NotFoundError(f"There is no volume {unknown[0]!r}; `modal volume list` shows those that there are.")
        code = 0
        for name in names or sorted(known):
            code |= await _verify_one(client, name, known[name])
        return code
    except ConnectionError as error:
        raise ConnectionError(f"No server answers on {settings.data_dir}. Start it with `intermodal up`.") from error
    finally:
        await client.close()


async def _verify_one(client: RpcClient, name: str, volume_id: str) -> int:
    count = 0
    async with client.stream(VOLUME_VERIFY, VolumeRef(volume_id)) as problems:
        async for problem, _ in problems:
            click.echo(f"{name}: {problem.text}")
            count += 1
    click.echo(f"{name}: {f'{count} problems' if count else 'as it was committed'}")
    return int(count > 0)
