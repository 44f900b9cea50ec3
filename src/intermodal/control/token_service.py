"""RPC: tokens are made, listed and revoked here, and connections of those that have become useless are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from intermodal.control.access import require_admin
from intermodal.control.rpc import Context, Dispatcher
from intermodal.control.tokens import Tokens, why_useless
from intermodal.store.interface import TokenRecord
from modal._wire.messages.common import Empty, ErrorInfo
from modal._wire.messages.token import (
    TOKEN_CREATE,
    TOKEN_IDENTITY,
    TOKEN_LIST,
    TOKEN_REVOKE,
    Identity,
    Role,
    TokenCreate,
    TokenCreated,
    TokenInfo,
    TokenList,
    TokenRef,
)

_LOOK = 60.0  # seconds between looks at the clock, which may be set


class TokenService:
    """Args: now: the clock, in seconds since the epoch."""

    def __init__(self, tokens: Tokens, dispatcher: Dispatcher, now: Callable[[], float]) -> None:
        self._tokens = tokens
        self._dispatcher = dispatcher
        self._now = now
        self._changed = asyncio.Event()

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(TOKEN_CREATE, self.create)
        dispatcher.register(TOKEN_LIST, self.list)
        dispatcher.register(TOKEN_REVOKE, self.revoke)
        dispatcher.register(TOKEN_IDENTITY, self.identity)

    async def create(self, ctx: Context, request: TokenCreate, body: bytes) -> TokenCreated:
        require_admin(ctx)
        record, secret = await self._tokens.create(
            request.name, request.role, request.lifetime, request.source, ctx.principal.who
        )
        self._changed.set()
        return TokenCreated(record.token_id, secret)

    async def list(self, ctx: Context, request: Empty, body: bytes) -> TokenList:
        require_admin(ctx)
        return TokenList([_info(record) for record in self._tokens.all()])

    async def revoke(self, ctx: Context, request: TokenRef, body: bytes) -> TokenInfo:
        require_admin(ctx)
        try:
            return _info(await self._tokens.revoke(request.token_id, ctx.principal.who))
        finally:
            self._changed.set()  # `run` acts after the answer has gone out, which may be to the very token

    def identity(self, ctx: Context, request: Empty, body: bytes) -> Identity:
        principal = ctx.principal
        return Identity(principal.kind, principal.name or principal.container_id, principal.role)

    async def run(self) -> None:
        """End the connections of tokens that expire or are revoked, until cancelled."""
        while True:
            self._changed.clear()
            self._end_useless()
            pause = min(_LOOK, self._tokens.next_expiry() or _LOOK)
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except asyncio.TimeoutError:
                pass  # something expires now

    def _end_useless(self) -> None:
        now = self._now()
        for record in self._tokens.all():
            if problem := why_useless(record, now):
                self._dispatcher.refuse_token(record.token_id, ErrorInfo("AuthError", problem))


def _info(record: TokenRecord) -> TokenInfo:
    return TokenInfo(
        record.token_id,
        record.name,
        Role(record.role),
        record.created_at,
        record.created_by,
        record.source,
        record.expires_at,
        record.revoked_at,
        record.last_used_at,
    )
