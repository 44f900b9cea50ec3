"""`modal token` and `modal setup`: credentials for a server over the network, in a profile of the configuration."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import Any, Optional

import click

from ..config import config, config_set_values, current_profile
from ..exception import AuthError, ConnectionError
from .errors import CliError
from .lazy import LazyGroup

Token = dict[str, str]

_PROFILE = click.option("--profile", help="Profile of the configuration; the active one by default.")
_SERVER = click.option(
    "--server-url", metavar="URL", help="Address of the server, kept in the profile; MODAL_SERVER_URL by default."
)
_ACTIVATE = click.option("--activate/--no-activate", default=True, help="Make the profile the active one.")
_VERIFY = click.option("--verify/--no-verify", default=True, help="Check the token with the server before storing it.")


@click.group("token", cls=LazyGroup)
def token_group() -> None:
    """Store tokens, which open servers over the network. The local server needs none."""


@token_group.command("set")
@click.option("--token-id", help="Token id; - reads it from stdin, without showing it.")
@click.option("--token-secret", help="Token secret; - reads it from stdin, without showing it.")
@_PROFILE
@_ACTIVATE
@_VERIFY
@_SERVER
def set_token(
    token_id: Optional[str],
    token_secret: Optional[str],
    profile: Optional[str],
    activate: bool,
    verify: bool,
    server_url: Optional[str],
) -> None:
    """Store a token in the configuration.

    An administrator of the server makes one with `intermodal token create`.
    """
    profile = profile or current_profile()
    server = _server_of(profile, server_url)
    token = {"id": _given("Token id", token_id), "secret": _given("Token secret", token_secret)}
    if verify:
        _verify_given(server, token)
    _store(profile, server, token, activate)


@token_group.command("new")
@_PROFILE
@_ACTIVATE
@_VERIFY
@click.option(
    "--source", default="cli", show_default=True, help="What asks for it; shown in the server's list of tokens."
)
@_SERVER
def new_token(profile: Optional[str], activate: bool, verify: bool, source: str, server_url: Optional[str]) -> None:
    """Make a new token with the role member, and store it.

    The local server makes it at once, and any server does for a profile whose token has the role admin. Otherwise an
    administrator makes one with `intermodal token create`, and this command asks for it.
    """
    profile = profile or current_profile()
    server = _server_of(profile, server_url)
    token = _make(profile, server, source)
    if verify:
        _verify(server, token)
    _store(profile, server, token, activate)


@click.command("setup")
@_PROFILE
@_SERVER
def setup(profile: Optional[str], server_url: Optional[str]) -> None:
    """Set up this machine's client: find the server and store a token for it.

    A profile that has a token which its server accepts is left as it is.
    """
    profile = profile or current_profile()
    server = _server_of(profile, server_url)
    token = _token_of(profile)
    if token is None or not _is_accepted(server, token):
        token = _make(profile, server, "setup")
        _verify(server, token)
    _store(profile, server, token, activate=True)
    click.echo("This machine is set up: `modal run` uses the server.")


def _server_of(profile: str, given: Optional[str]) -> Optional[str]:
    """The server's address; None: the local server."""
    if given is not None:
        config.override_locally("server_url", given)  # checked, and from now on what this process talks to
    url = config.get("server_url", profile=profile)
    return str(url) if url else None


def _token_of(profile: str) -> Optional[Token]:
    token_id, secret = config.get("token_id", profile=profile), config.get("token_secret", profile=profile)
    return {"id": token_id, "secret": secret} if token_id and secret else None


def _given(what: str, value: Optional[str]) -> str:
    """The value of an option, or what is typed or piped in instead."""
    if value == "-" or (value is None and sys.stdin.isatty()):
        value = getpass.getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not value or not value.strip():
        option = "--" + what.lower().replace(" ", "-")
        raise CliError(f"{what} is missing: give {option}, with - to read it from stdin.", 2)
    return value.strip()


def _verify_given(server: Optional[str], token: Token) -> None:
    from .._local_server import local_socket

    try:
        _verify(server or f"unix://{local_socket()}", token)
    except ConnectionError as error:
        if server is not None:
            raise CliError(f"{error} Nothing was stored; with --no-verify the token is stored unchecked.") from None
        click.echo("The token is stored unchecked: no address of a server is set (--server-url), and none runs here.")
    except AuthError as error:
        raise CliError(f"{error} Nothing was stored; with --no-verify the token is stored unchecked.") from None


def _is_accepted(server: Optional[str], token: Token) -> bool:
    try:
        _verify(server, token)
    except AuthError as error:
        click.echo(f"The token that was stored is of no use. {error}", err=True)
        return False
    return True


def _verify(server: Optional[str], token: Token) -> None:
    """Show the token to the server and say who it makes the user.

    Raises:
        AuthError: the server does not accept it.
        ConnectionError: the server cannot be reached.
    """
    from .. import _sync
    from .._wire.messages.common import Empty
    from .._wire.messages.token import TOKEN_IDENTITY

    identity = _sync.run(_ask(server, token, TOKEN_IDENTITY, Empty()))
    click.echo(f"The server {server or 'on this machine'} accepts the token: {identity.name} ({identity.role.value}).")


def _make(profile: str, server: Optional[str], source: str) -> Token:
    """Let the server make a token, or ask the user for one that an administrator has made."""
    from .. import _sync
    from .._wire.messages.token import TOKEN_CREATE, TokenCreate

    shown = _token_of(profile) if server is not None and server.startswith("http") else None
    name = _own_name()
    try:
        made = _sync.run(_ask(server, shown, TOKEN_CREATE, TokenCreate(name, source=source)))
    except AuthError:
        return _ask_for_token(server, name)
    except ConnectionError as error:
        if server is not None:
            raise
        raise CliError(
            f"{error} If a server runs elsewhere, name it with --server-url; its administrator makes a token with "
            f"`intermodal token create {name}`."
        ) from None
    return {"id": made.token_id, "secret": made.token_secret}


def _own_name() -> str:
    """Whose token it is, for the server's list: user@machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:100]


def _ask_for_token(server: Optional[str], name: str) -> Token:
    how = f"on the server's machine, `intermodal token create {name}`"
    if not sys.stdin.isatty():
        raise CliError(
            f"The server {server} makes tokens only for its administrators. Ask one of them to run, {how}, and store "
            "what it prints with `modal token set`."
        )
    click.echo(f"The server {server} makes tokens only for its administrators. Ask one of them to run, {how}:")
    return {"id": _given("Token id", None), "secret": _given("Token secret", None)}


async def _ask(server: Optional[str], token: Optional[Token], method: Any, request: Any) -> Any:
    from .._local_server import ensure_local_server
    from .._objects.client import Client

    client = Client(server or await ensure_local_server(), token)
    try:
        reply, _ = await (await client._rpc()).unary(method, request)
        return reply
    finally:
        await client._close()


def _store(profile: str, server: Optional[str], token: Token, activate: bool) -> None:
    values = {"token_id": token["id"], "token_secret": token["secret"]}
    if server is not None:
        values["server_url"] = server
    config_set_values(values, profile, activate)
    click.echo(f"Stored the token in profile `{profile}`.")
    overriding = [name for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET") if os.environ.get(name)]
    if os.environ.get("MODAL_PROFILE", profile) != profile:
        overriding.append("MODAL_PROFILE")
    if overriding:
        click.echo(f"It is not in use while {' and '.join(overriding)} is set in the environment.", err=True)
