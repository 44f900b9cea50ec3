"""Client and server of different protocol versions: both sides say which of them is too old."""

from __future__ import annotations

import asyncio
import sys

import pytest
from access_server import AccessServer

from modal._wire import connection
from modal.exception import VersionError

#: A client of another protocol version, which prints how it fails.
CLIENT = """
import asyncio, sys
from modal._wire import connection
connection.PROTOCOL = int(sys.argv[1])
from modal._wire.client import RpcClient
async def main():
    client = RpcClient(sys.argv[2], session="se-x", token={"id": "ak-x", "secret": "as-x"})
    try:
        await client.open()
    except Exception as error:
        print(type(error).__name__, error)
    await client.close()
asyncio.run(main())
"""


async def run_client(version: int, target: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(version), target, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode()


@pytest.mark.parametrize(("client", "old"), [(connection.PROTOCOL + 1, "server"), (connection.PROTOCOL - 1, "client")])
@pytest.mark.parametrize("carrier", ["unix", "websocket"])
async def test_the_server_says_who_must_upgrade(server: AccessServer, carrier: str, client: int, old: str) -> None:
    target = server.url if carrier == "websocket" else f"unix://{server.settings.socket}"
    said = await run_client(client, target)
    assert said == (
        f"VersionError The client speaks protocol version {client} and the server version {connection.PROTOCOL}; "
        f"upgrade Intermodal on the {old}.\n"
    )


@pytest.mark.parametrize(("version", "old"), [(connection.PROTOCOL + 1, "client"), (connection.PROTOCOL - 1, "server")])
async def test_the_client_says_who_must_upgrade(
    server: AccessServer, version: int, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's side of it is another version's: it takes this client, which finds that it should not have."""

    def welcome(self: connection.Connection, server_version: str) -> None:
        self._send({"t": "welcome", "protocol": version, "version": server_version})
        self._become(connection.State.OPEN)

    monkeypatch.setattr(connection.Connection, "welcome", welcome)
    with pytest.raises(VersionError, match=f"upgrade Intermodal on the {old}"):
        async with server.client():
            pass
