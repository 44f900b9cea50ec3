"""Every method there is, called by those who may not: a new one is in these tests by itself.

A method that a test finds open belongs into one of the lists below, or gets a check.
"""

from __future__ import annotations

import pytest
from access_server import AccessServer, attempt, make_app
from websockets.asyncio.client import connect

from modal._wire.frames import pack, unpack
from modal._wire.messages.app import AppState
from modal._wire.messages.token import Role
from modal.exception import AuthError

#: What code in any container may do, and why that gives nothing away.
OPEN_TO_CONTAINERS = {
    "server.info": "says nothing of the machine to it",
    "token.identity": "says who the caller is",
    "blob.missing": "a digest gives nothing away but that its content exists",
    "blob.put": "adds bytes under their own digest, within a size limit",
    "blob.get": "knowing the digest is what entitles to the bytes",
    "mount.create": "names blobs that the caller knows by digest",
    "image.get": "an image id is a hash of what the caller describes",
}
#: What the code of an environment shares: objects with names, and ephemeral ones by their secret ids.
SHARED_IN_AN_ENVIRONMENT = {
    *(f"named.{verb}" for verb in ("get", "find", "delete", "rename", "list")),
    *(f"ephemeral.{verb}" for verb in ("create", "release")),
    *(f"dict.{verb}" for verb in ("get", "contains", "put", "pop", "clear", "len", "scan")),
    *(f"queue.{verb}" for verb in ("put", "get", "return", "scan", "len", "clear")),
    *(f"files.{verb}" for verb in ("list", "read", "put", "copy")),
    "file.remove",
    *(f"volume.{verb}" for verb in ("commit", "reload")),
    "secret.lookup",  # the id; no reply holds a value
}
#: What it may do with the deployed apps of its environment: find and call their functions.
CALLS_OF_DEPLOYED_APPS = {
    "app.lookup",
    *(f"function.{verb}" for verb in ("lookup", "get", "bind", "stats")),
    *(f"call.{verb}" for verb in ("run", "spawn", "map", "generate", "get", "graph", "cancel")),
}
#: What is for those who may give access.
FOR_ADMINS = {"token.create", "token.list", "token.revoke", "secret.rotate_key"}
#: What only code in a container asks for.
FOR_CONTAINERS = {"interact.offer"}
#: They take away what other methods need to be tried at all.
LAST = ("call.cancel", "container.stop", "dict.clear", "ephemeral.release", "app.stop", "named.delete")


def in_order(server: AccessServer) -> list[str]:
    return sorted(server.methods, key=lambda name: LAST.index(name) if name in LAST else -1)


@pytest.mark.parametrize("state", [AppState.EPHEMERAL, AppState.DEPLOYED])
@pytest.mark.parametrize("environment_id", ["en-main", "en-other"])
async def test_a_container_of_another_app_gets_at_what_its_environment_shares(
    server: AccessServer, state: AppState, environment_id: str
) -> None:
    async with server.client() as owner:
        ids = await make_app(owner, state)
        async with server.container("ap-other", environment_id) as container:
            served = {
                name for name in in_order(server) if await attempt(container, server.methods[name], ids) == "served"
            }
    expected = set(OPEN_TO_CONTAINERS)
    if environment_id == "en-main":
        expected |= SHARED_IN_AN_ENVIRONMENT
        expected |= CALLS_OF_DEPLOYED_APPS if state is AppState.DEPLOYED else set()
    assert served == expected


async def test_a_read_only_token_changes_nothing_and_sees_the_rest(server: AccessServer) -> None:
    token = await server.make_token(Role.READ_ONLY)
    async with server.client() as owner:
        ids = {**await make_app(owner, AppState.DEPLOYED), "token_id": str(token["id"])}
        async with server.client(server.url, token=token) as reader:
            ends = {name: await attempt(reader, server.methods[name], ids) for name in in_order(server)}
    mutating = {name for name, method in server.methods.items() if method.mutating}
    assert {name for name, end in ends.items() if end == "refused"} == mutating | FOR_ADMINS
    assert {name for name, end in ends.items() if end == "served"} >= set(server.methods) - mutating - FOR_ADMINS - {
        "environment.get"  # asks for the environment with the name of the app
    }


async def test_a_member_does_everything_but_give_access(server: AccessServer) -> None:
    token = await server.make_token(Role.MEMBER)
    async with server.client() as owner:
        ids = {**await make_app(owner, AppState.DEPLOYED), "token_id": str(token["id"])}
        async with server.client(server.url, token=token) as member:
            refused = {
                name for name in in_order(server) if await attempt(member, server.methods[name], ids) == "refused"
            }
    assert refused == FOR_ADMINS | FOR_CONTAINERS


async def test_without_a_token_nothing_is_served(server: AccessServer) -> None:
    with pytest.raises(AuthError, match="wants a token"):
        async with server.client(server.url):
            pass
    for number, name in enumerate(server.methods, 1):  # without the handshake, too
        async with connect(server.url.replace("http", "ws") + "/rpc") as socket:
            await socket.send(pack({"t": "open", "id": number, "m": name, "q": {}}))
            answer, _ = unpack(await socket.recv())
            assert (answer["t"], answer["e"]["type"], "id" in answer) == ("error", "InvalidError", False)
