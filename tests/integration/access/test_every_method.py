"""Every method there is, called by those who may not: a new one is in these tests by itself."""

from __future__ import annotations

import pytest
from access_server import AccessServer, attempt, make_app
from websockets.asyncio.client import connect

from modal._wire.frames import pack, unpack
from modal._wire.messages.app import APP_CREATE, AppCreate
from modal._wire.messages.token import Role
from modal.exception import AuthError

#: What code in a container of any app may do, and why that gives nothing away.
OPEN_TO_CONTAINERS = {
    "server.info": "says nothing of the machine to it",
    "token.identity": "says who the caller is",
    "blob.missing": "a digest gives nothing away but that its content exists",
    "blob.put": "adds bytes under their own digest, within a size limit",
    "blob.get": "knowing the digest is what entitles to the bytes",
    "mount.create": "names blobs that the caller knows by digest",
    "image.get": "an image id is a hash of what the caller describes",
}
#: What changes nothing, but is only for those who may give access.
FOR_ADMINS = {"token.list"}


async def test_a_container_of_another_app_gets_at_nothing(server: AccessServer) -> None:
    async with server.client() as owner:
        ids = await make_app(owner)
        other, _ = await owner.unary(APP_CREATE, AppCreate("mine", "main"))
        async with server.container(other.app_id) as container:
            served = {
                name
                for name, method in server.methods.items()
                if await attempt(container, method, {**ids, "token_id": "ak-1"}) == "served"
            }
    assert served == set(OPEN_TO_CONTAINERS)


async def test_a_read_only_token_changes_nothing_and_sees_the_rest(server: AccessServer) -> None:
    token = await server.make_token(Role.READ_ONLY)
    async with server.client() as owner:
        ids = {**await make_app(owner), "token_id": str(token["id"])}
        async with server.client(server.url, token=token) as reader:
            ends = {name: await attempt(reader, method, ids) for name, method in server.methods.items()}
    mutating = {name for name, method in server.methods.items() if method.mutating}
    assert {name for name, end in ends.items() if end == "refused"} == mutating | FOR_ADMINS


async def test_a_member_does_everything_but_give_access(server: AccessServer) -> None:
    token = await server.make_token(Role.MEMBER)
    async with server.client() as owner:
        ids = {**await make_app(owner), "token_id": str(token["id"])}
        async with server.client(server.url, token=token) as member:
            last = ("app.stop", "call.cancel")  # they take away what the others need
            names = sorted(server.methods, key=lambda name: (name in last, name))
            refused = {name for name in names if await attempt(member, server.methods[name], ids) == "refused"}
    assert refused == {"token.create", "token.list", "token.revoke"}


async def test_without_a_token_nothing_is_served(server: AccessServer) -> None:
    with pytest.raises(AuthError, match="wants a token"):
        async with server.client(server.url):
            pass
    for number, name in enumerate(server.methods, 1):  # without the handshake, too
        async with connect(server.url.replace("http", "ws") + "/rpc") as socket:
            await socket.send(pack({"t": "open", "id": number, "m": name, "q": {}}))
            answer, _ = unpack(await socket.recv())
            assert (answer["t"], answer["e"]["type"], "id" in answer) == ("error", "InvalidError", False)
