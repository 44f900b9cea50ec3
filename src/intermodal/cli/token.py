"""`intermodal token`: who may use a server over the network. Asks the one on the data directory, or a remote one."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Sequence
from typing import TypeVar

import click

from intermodal.model.ids import new_id
from intermodal.settings import Settings
from modal._wire.client import RpcClient
from modal._wire.codec import encode
from modal._wire.messages.common import Empty, Method
from modal._wire.messages.token import (
    TOKEN_CREATE,
    TOKEN_LIST,
    TOKEN_REVOKE,
    Role,
    TokenCreate,
    TokenInfo,
    TokenRef,
)
from modal.cli.tables import print_table
from modal.config import config
from modal.exception import ConnectionError, InvalidError, NotFoundError

ANSWER_TIMEOUT = 10.0  #: seconds a server has to answer
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}

Request = TypeVar("Request")
Response = TypeVar("Response")


class TokenAdmin:
    """Asks a server about its tokens.

    Args:
        settings: name the data directory of the server on this machine.
        profile: of the client's configuration, whose server and token are used instead; it takes the role admin.
    """

    def __init__(self, settings: Settings, profile: str | None = None) -> None:
        self._settings = settings
        self._profile = profile

    def ask(self, method: Method[Request, Response], request: Request) -> Response:
        """Raises:
        InvalidError: the profile has no server and token.
        ConnectionError: the server does not answer.
        AuthError: the token of the profile does not allow it.
        """
        session = new_id("se", random.SystemRandom())
        if self._profile is not None:
            target, token = _server_and_token(self._profile)
            client = RpcClient(target, session=session, token=token, reconnect_timeout=0)
            return asyncio.run(_unary(client, method, request))
        client = RpcClient(f"unix://{self._settings.socket}", session=session, connect_timeout=0, reconnect_timeout=0)
        try:
            return asyncio.run(_unary(client, method, request))
        except ConnectionError as error:
            raise ConnectionError(
                f"No server answers on {self._settings.data_dir}. Start it with `intermodal up`, or name its data "
                "directory with --data-dir, or with --profile a server elsewhere."
            ) from error


def _server_and_token(profile: str) -> tuple[str, dict[str, str]]:
    server, token_id, secret = (config.get(key, profile=profile) for key in ("server_url", "token_id", "token_secret"))
    if not (server and token_id and secret):
        raise InvalidError(f"The profile {profile!r} has no server_url with a token; `modal token set` stores them.")
    return server, {"id": token_id, "secret": secret}


def create(admin: TokenAdmin, name: str, role: Role, expires: str | None, as_json: bool) -> None:
    """Make a token and print it, once."""
    lifetime = None if expires is None else seconds_of(expires)
    made = admin.ask(TOKEN_CREATE, TokenCreate(name, role, lifetime, "intermodal token"))
    if as_json:
        click.echo(json.dumps({"token_id": made.token_id, "token_secret": made.token_secret}, indent=2))
        return
    click.echo(f"Made the token {made.token_id} ({name}, {role.value}). Its secret is shown this once:\n")
    click.echo(f"  modal token set --token-id {made.token_id} --token-secret {made.token_secret}")


def show(admin: TokenAdmin, everything: bool, as_json: bool) -> None:
    """Print the tokens; those that are revoked or expired only when asked for `everything`."""
    now = time.time()
    tokens = admin.ask(TOKEN_LIST, Empty()).tokens
    chosen = [token for token in tokens if everything or state_of(token, now) == "valid"]
    if as_json:
        click.echo(json.dumps([{**encode(token), "state": state_of(token, now)} for token in chosen], indent=2))
        return
    columns = ["Token", "Name", "Role", "State", "Expires", "Last used", "Made", "By", "Source"]
    print_table(columns, [_row(token, now) for token in chosen], as_json=False)


def revoke(admin: TokenAdmin, token: str) -> None:
    """Revoke the token with this id or name."""
    found = find(admin.ask(TOKEN_LIST, Empty()).tokens, token, time.time())
    done = admin.ask(TOKEN_REVOKE, TokenRef(found.token_id))
    click.echo(f"Revoked the token {done.token_id} ({done.name}); its connections are closed.")


def find(tokens: Sequence[TokenInfo], wanted: str, now: float) -> TokenInfo:
    """The token with this id, or the one valid token with this name.

    Raises:
        NotFoundError: there is none.
        InvalidError: several have the name.
    """
    for token in tokens:
        if token.token_id == wanted:
            return token
    named = [token for token in tokens if token.name == wanted and state_of(token, now) == "valid"]
    if not named:
        raise NotFoundError(f"There is no valid token {wanted!r}; `intermodal token list` shows them.")
    if len(named) > 1:
        ids = ", ".join(token.token_id for token in named)
        raise InvalidError(f"Several tokens have the name {wanted!r}: give the id of one of {ids}.")
    return named[0]


def state_of(token: TokenInfo, now: float) -> str:
    """One of valid, revoked and expired."""
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "valid"


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90d, 12h or 30m. Raises `InvalidError`."""
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if match is None:
        raise InvalidError(f"{text!r} is not a duration; it looks like 90d, 12h or 30m.")
    return int(match[1]) * _UNITS[match[2]]


def _row(token: TokenInfo, now: float) -> list[str]:
    return [
        token.token_id,
        token.name,
        token.role.value,
        state_of(token, now),
        _date(token.expires_at, "never"),
        _date(token.last_used_at, "never"),
        _date(token.created_at, ""),
        token.created_by,
        token.source,
    ]


def _date(at: float | None, otherwise: str) -> str:
    return otherwise if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


async def _unary(client: RpcClient, method: Method[Request, Response], request: Request) -> Response:
    try:
        await client.open()
        response, _ = await client.unary(method, request, timeout=ANSWER_TIMEOUT)
        return response
    finally:
        await client.close()
