"""Who gets in, and who is put out again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from access_server import AccessServer, access_server

from intermodal.control.login_limits import FREE_PER_TOKEN
from modal._wire.client import RpcClient
from modal._wire.messages.common import Empty
from modal._wire.messages.server import SERVER_INFO
from modal._wire.messages.token import TOKEN_IDENTITY, TOKEN_REVOKE, Identity, Role, TokenRef
from modal.exception import AuthError


async def ask_for_ever(client: RpcClient) -> None:
    """Returns only by an error."""
    async with asyncio.timeout(20):
        while True:
            await client.unary(TOKEN_IDENTITY, Empty())
            await asyncio.sleep(0.01)


async def test_a_token_opens_the_port_and_a_local_user_needs_none(server: AccessServer) -> None:
    token = await server.make_token(Role.MEMBER)
    async with server.client(server.url, token=token) as client:
        assert (await client.unary(TOKEN_IDENTITY, Empty()))[0] == Identity("token", "a member", Role.MEMBER)
        info, _ = await client.unary(SERVER_INFO, Empty())
        assert (info.url, info.socket, info.data_dir) == (server.url, "", "")
    async with server.client() as local:
        assert (await local.unary(TOKEN_IDENTITY, Empty()))[0] == Identity("local", "", Role.ADMIN)
        assert (await local.unary(SERVER_INFO, Empty()))[0].data_dir == str(server.settings.data_dir)


@pytest.mark.parametrize(
    "token", [{"id": "ak-x", "secret": "as-x"}, {}, {"id": 5}, {"id": "ak", "secret": "y" * 9_000}]
)
async def test_a_wrong_token_is_refused(server: AccessServer, token: dict[str, object]) -> None:
    with pytest.raises(AuthError, match="is not accepted"):
        async with server.client(server.url, token=token):
            pass


async def test_whoever_shows_a_token_is_who_it_says_on_every_socket(server: AccessServer) -> None:
    token = await server.make_token(Role.READ_ONLY)
    async with server.client(token=token) as client:
        assert (await client.unary(TOKEN_IDENTITY, Empty()))[0].role is Role.READ_ONLY
    with pytest.raises(AuthError):
        async with server.client(token={**token, "secret": "as-x"}):
            pass


async def test_a_revoked_token_is_put_out_at_once_and_stays_out(server: AccessServer) -> None:
    token, other = await server.make_token(), await server.make_token()
    async with server.client() as admin, server.client(server.url, token=other) as bystander:
        async with server.client(server.url, token=token) as client:
            revoked, _ = await admin.unary(TOKEN_REVOKE, TokenRef(str(token["id"])))
            assert revoked.revoked_at is not None
            with pytest.raises(AuthError, match="was revoked"):
                await ask_for_ever(client)
        with pytest.raises(AuthError, match="was revoked"):
            async with server.client(server.url, token=token):
                pass
        assert (await bystander.unary(TOKEN_IDENTITY, Empty()))[0].name == "a member"


async def test_an_admin_can_revoke_its_own_token_and_hears_that_it_worked(server: AccessServer) -> None:
    token = await server.make_token(Role.ADMIN)
    async with server.client(server.url, token=token) as client:
        revoked, _ = await client.unary(TOKEN_REVOKE, TokenRef(str(token["id"])))
        assert revoked.revoked_at is not None
        with pytest.raises(AuthError, match="was revoked"):
            await ask_for_ever(client)


async def test_a_connection_ends_when_its_token_expires(server: AccessServer) -> None:
    token = await server.make_token(lifetime=0.5)
    async with server.client(server.url, token=token) as client:
        with pytest.raises(AuthError, match="has expired"):
            await ask_for_ever(client)


async def test_tokens_outlive_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").mkdir()
    database = f"sqlite:///{tmp_path}/state.db"
    async with access_server(tmp_path / "1", monkeypatch, database_url=database) as first:
        token, revoked = await first.make_token(), await first.make_token()
        async with first.client() as admin:
            await admin.unary(TOKEN_REVOKE, TokenRef(str(revoked["id"])))
    secret = str(token["secret"]).encode()
    assert all(secret not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    (tmp_path / "2").mkdir()
    async with access_server(tmp_path / "2", monkeypatch, database_url=database) as second:
        async with second.client(second.url, token=token) as client:
            assert (await client.unary(TOKEN_IDENTITY, Empty()))[0].name == "a member"
        with pytest.raises(AuthError, match="was revoked"):
            async with second.client(second.url, token=revoked):
                pass


async def test_repeated_failures_make_the_address_wait_but_not_others(server: AccessServer) -> None:
    token = await server.make_token()
    for _ in range(FREE_PER_TOKEN):
        with pytest.raises(AuthError, match="is not accepted"):
            async with server.client(server.url, token={**token, "secret": "as-guess"}):
                pass
    with pytest.raises(AuthError, match=r"Too many logins failed from this address; try again in \d s") as error:
        async with server.client(server.url, token=token):
            pass
    assert error.value.data["retry_after"] > 0  # type: ignore[attr-defined]
    async with server.client(token=token) as elsewhere:  # the local socket is another address
        await elsewhere.unary(TOKEN_IDENTITY, Empty())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_at_the_socket_even_when_its_mode_lets_them_in(server: AccessServer) -> None:
    for path in (server.settings.socket, *server.settings.socket.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o777)
    program = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "with socket.socket(socket.AF_UNIX) as s:\n"
        "    s.connect(sys.argv[1])\n"
        "    try:\n"
        "        s.sendall(b'\\0\\0\\0\\2{}')\n"
        "        print(s.recv(1))\n"
        "    except (BrokenPipeError, ConnectionResetError):\n"
        "        print(b'')\n"
    )
    command = [sys.executable, "-c", program, str(server.settings.socket)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("b''\n", "")
    assert server.dispatcher._peers == set()
