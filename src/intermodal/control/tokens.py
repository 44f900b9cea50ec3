"""The tokens that people and programs show over the network, and the one place where they are checked.

The server draws each secret itself, with 256 random bits, and keeps HMAC-SHA256(token id, secret). Nobody can search
through 2**256 secrets however fast the hash is, so a slow one, as passwords need, would protect nothing; it would let
anyone who can reach the port keep the server busy. The token id as key makes equal secrets look different.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from intermodal.control.login_limits import LoginLimits
from intermodal.control.rpc import Authenticate, Principal
from intermodal.model.ids import new_id
from intermodal.store.interface import Store, TokenRecord
from modal._wire.messages.token import Role
from modal.exception import AuthError, InvalidError, NotFoundError

log = logging.getLogger(__name__)
_PART = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NAME_LIMIT = 100
_NOBODY = bytes(32)  # no secret has this hash
_LONGEST_LIFE = 100 * 365 * 24 * 3600.0  # seconds
_USE_GRAIN = 60.0  # seconds; a token in steady use is not written at every connection
_HINT = (
    "Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or store a token with `modal token set`; "
    "an administrator of the server makes one with `intermodal token create`."
)


class Tokens:
    """Every token that has not been forgotten, by id.

    Args:
        now: the clock, in seconds since the epoch.
        elapsed: a clock that does not jump, in seconds.
    """

    def __init__(
        self,
        store: Store,
        rng: random.Random,
        now: Callable[[], float],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._rng = rng
        self._now = now
        self._elapsed = elapsed
        self._limits = LoginLimits()
        self._tokens: dict[str, TokenRecord] = {}

    def restore(self, records: Iterable[TokenRecord]) -> None:
        self._tokens.update((record.token_id, record) for record in records)

    def all(self) -> list[TokenRecord]:
        """Oldest first."""
        return sorted(self._tokens.values(), key=lambda record: (record.created_at, record.token_id))

    def get(self, token_id: str) -> TokenRecord:
        """Raises `NotFoundError`."""
        try:
            return self._tokens[token_id]
        except KeyError:
            raise NotFoundError(f"There is no token {token_id[:60]!r}.") from None

    async def create(
        self, name: str, role: Role, lifetime: float | None, source: str, created_by: str
    ) -> tuple[TokenRecord, str]:
        """Make a token; returns it and its secret, which cannot be found out again.

        Args:
            lifetime: seconds; None: it never expires.

        Raises:
            InvalidError: a part makes no sense.
            StoreError: it cannot be kept; there is no new token.
        """
        # Both are shown in other people's terminals.
        if not 0 < len(name) <= _NAME_LIMIT or not name.isprintable():
            raise InvalidError(f"The name of a token is 1 to {_NAME_LIMIT} printable characters.")
        if len(source) > _NAME_LIMIT or not source.isprintable():
            raise InvalidError(f"The source of a token is at most {_NAME_LIMIT} printable characters.")
        if lifetime is not None and not 0 < lifetime <= _LONGEST_LIFE:
            raise InvalidError("A token lives for more than 0 seconds and at most 100 years.")
        token_id = new_id("ak", self._rng)
        secret = "as-" + "".join(new_id("", self._rng)[1:] for _ in range(2))
        now = self._now()
        expires_at = None if lifetime is None else now + lifetime
        record = TokenRecord(
            token_id, name, role.value, _hash(token_id, secret), now, created_by[:200], source, expires_at
        )
        await self._store.write([record])
        self._tokens[token_id] = record
        log.info("%s made the token %s (%s, %s)", created_by, token_id, name, role.value)
        return record, secret

    async def revoke(self, token_id: str, revoked_by: str) -> TokenRecord:
        """From now on the token is not accepted; returns once that is durable. Twice is no error.

        Raises:
            NotFoundError: there is no such token.
            StoreError: it is not accepted any more, but that is not kept yet.
        """
        record = self.get(token_id)
        if record.revoked_at is None:
            record = self._tokens[token_id] = replace(record, revoked_at=self._now())
            log.info("%s revoked the token %s (%s)", revoked_by, token_id, record.name)
        await self._store.write([record])
        return record

    def authenticator(self, address: str, otherwise: Principal | None = None) -> Authenticate:
        """What checks the handshake of a connection from `address`; without a token its caller is `otherwise`."""

        def authenticate(token: dict[str, Any] | None) -> Principal:
            if token is None and otherwise is not None:
                return otherwise
            return self.authenticate(token, address)

        return authenticate

    def authenticate(self, token: dict[str, Any] | None, address: str) -> Principal:
        """Say whose token this is.

        Args:
            token: ``{"id": …, "secret": …}`` as a client sent it.
            address: where it came from, for the limit on failed logins.

        Raises:
            AuthError: it is missing, wrong, revoked or expired, or has been wrong too often.
        """
        if token is None:
            raise AuthError(f"This server wants a token. {_HINT}")
        token_id, secret = _parts(token)
        wait = self._limits.wait(address, token_id, self._elapsed())
        if wait > 0:
            error = AuthError(f"Too many logins failed from this address; try again in {math.ceil(wait)} s.")
            error.data = {"retry_after": wait}  # type: ignore[attr-defined]
            raise error
        record = self._tokens.get(token_id)
        kept = record.secret_hash if record is not None else _NOBODY
        if not hmac.compare_digest(_hash(token_id, secret), kept) or record is None:
            self._limits.failed(address, token_id, self._elapsed())
            log.warning("a login from %s failed, with the token id %s", address, token_id or "(malformed)")
            raise AuthError(f"The token {token_id or 'that was sent'} is not accepted. {_HINT}")
        # Whoever knows the secret may know what became of the token.
        if problem := why_useless(record, self._now()):
            raise AuthError(f"{problem} {_HINT}")
        self._limits.succeeded(address, token_id)
        self._note_use(record)
        log.info("the token %s (%s) connected from %s", token_id, record.name, address)
        return Principal("token", token_id=token_id, name=record.name, role=Role(record.role))

    def _note_use(self, record: TokenRecord) -> None:
        now = self._now()
        if record.last_used_at is None or not 0 <= now - record.last_used_at < _USE_GRAIN:
            self._tokens[record.token_id] = used = replace(record, last_used_at=now)
            self._store.write([used])

    def next_expiry(self) -> float | None:
        """Seconds until the next token expires; None: none will."""
        now = self._now()
        expiries = (one.expires_at for one in self._tokens.values() if one.expires_at is not None)
        return min((expiry - now for expiry in expiries if expiry > now), default=None)

    def forget(self, before: float) -> None:
        """Drop those that have been useless since before a time, as the store does."""
        for record in list(self._tokens.values()):
            if min(record.revoked_at or before, record.expires_at or before) < before:
                del self._tokens[record.token_id]


def _parts(token: dict[str, Any]) -> tuple[str, str]:
    """Id and secret; what has not the form of a token is not worth being kept or logged, and becomes empty."""
    token_id, secret = str(token.get("id")), str(token.get("secret"))
    return (token_id, secret) if _PART.fullmatch(token_id) and _PART.fullmatch(secret) else ("", "")


def why_useless(record: TokenRecord, now: float) -> str:
    """One sentence that says why a token is not accepted any more; "" when it is."""
    if record.revoked_at is not None:
        return f"The token {record.name!r} ({record.token_id}) was revoked."
    if record.expires_at is not None and record.expires_at <= now:
        return f"The token {record.name!r} ({record.token_id}) has expired."
    return ""


def _hash(token_id: str, secret: str) -> bytes:
    return hmac.digest(token_id.encode(), secret.encode(), hashlib.sha256)
