"""Tokens are made, checked and refused; their secrets are kept nowhere."""

from __future__ import annotations

import random
from typing import Any

import pytest

from intermodal.control.login_limits import FREE_PER_TOKEN
from intermodal.control.tokens import Tokens
from intermodal.store.failing import FailingStore
from intermodal.store.interface import StoreError, TokenRecord
from intermodal.store.memory import MemoryStore
from modal._wire.messages.token import Role
from modal.exception import AuthError, InvalidError, NotFoundError


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
def tokens(store: FailingStore, clock: Clock) -> Tokens:
    return Tokens(store, random.Random(1), clock, clock)


async def make(tokens: Tokens, lifetime: float | None = None) -> tuple[TokenRecord, dict[str, Any]]:
    record, secret = await tokens.create("ci", Role.MEMBER, lifetime, "cli", "local user")
    return record, {"id": record.token_id, "secret": secret}


async def test_a_token_is_recognised_and_its_secret_is_not_kept(tokens: Tokens, store: MemoryStore) -> None:
    record, token = await make(tokens)
    principal = tokens.authenticate(token, "10.0.0.1")
    assert (principal.kind, principal.token_id, principal.who) == ("token", record.token_id, "ci")
    assert principal.role is Role.MEMBER
    assert len(token["secret"]) == 3 + 44
    loaded = (await store.load()).tokens
    assert token["secret"] not in repr(loaded)
    assert token["secret"][3:].encode() not in loaded[0].secret_hash


async def test_equal_secrets_have_different_hashes_and_restart_keeps_them(tokens: Tokens, store: MemoryStore) -> None:
    first, token = await make(tokens)
    second, _ = await make(tokens)
    assert first.secret_hash != second.secret_hash
    restarted = Tokens(store, random.Random(2), Clock())
    restarted.restore((await store.load()).tokens)
    assert restarted.authenticate(token, "10.0.0.1").token_id == first.token_id


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "as-wrong"},
        {"secret": ""},
        {"secret": None},
        {"secret": 7},
        {"secret": "as-\u00e9"},
        {"secret": "x" * 1_000_000},
        {"id": "ak-unknown"},
        {"id": ""},
        {"id": ["ak"]},
        {"id": "\U0001f600"},
        {"id": "x\nERROR forged line of a log"},
    ],
)
async def test_what_is_not_the_token_is_refused_and_never_echoed(
    tokens: Tokens, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, token = await make(tokens)
    with pytest.raises(AuthError, match=r"is not accepted.*MODAL_TOKEN_ID") as error:
        tokens.authenticate({**token, **change}, "10.0.0.1")
    assert len(str(error.value)) < 400
    assert "forged" not in caplog.text + str(error.value)
    assert token["secret"] not in caplog.text + str(error.value)


async def test_no_token_is_its_own_message(tokens: Tokens) -> None:
    with pytest.raises(AuthError, match=r"wants a token.*modal token set.*intermodal token create"):
        tokens.authenticate(None, "10.0.0.1")


async def test_a_revoked_and_an_expired_token_say_so(tokens: Tokens, clock: Clock) -> None:
    record, token = await make(tokens)
    _, short = await make(tokens, lifetime=60.0)
    assert tokens.next_expiry() == 60.0
    await tokens.revoke(record.token_id, "local user")
    await tokens.revoke(record.token_id, "local user")
    with pytest.raises(AuthError, match=r"'ci' \(ak-.*\) was revoked"):
        tokens.authenticate(token, "10.0.0.1")
    clock.now += 60.0
    with pytest.raises(AuthError, match="has expired"):
        tokens.authenticate(short, "10.0.0.1")
    with pytest.raises(AuthError, match="is not accepted"):  # a stranger learns nothing of it
        tokens.authenticate({**token, "secret": "as-x"}, "10.0.0.1")
    with pytest.raises(NotFoundError):
        await tokens.revoke("ak-none", "local user")


async def test_failures_make_that_address_wait_and_nobody_else(tokens: Tokens, clock: Clock) -> None:
    _, token = await make(tokens)
    for _ in range(FREE_PER_TOKEN):
        with pytest.raises(AuthError, match="is not accepted"):
            tokens.authenticate({**token, "secret": "as-guess"}, "10.0.0.1")
    with pytest.raises(AuthError, match="Too many logins failed from this address; try again in 1 s") as error:
        tokens.authenticate(token, "10.0.0.1")
    assert 0 < error.value.data["retry_after"] <= 1  # type: ignore[attr-defined]
    assert tokens.authenticate(token, "10.0.0.2").who == "ci"
    clock.now += 1.0
    assert tokens.authenticate(token, "10.0.0.1").who == "ci"


async def test_use_is_noted_to_a_minute(tokens: Tokens, clock: Clock) -> None:
    record, token = await make(tokens)
    for at in (1_010.0, 1_020.0):
        clock.now = at
        tokens.authenticate(token, "10.0.0.1")
    assert tokens.get(record.token_id).last_used_at == 1_010.0
    clock.now = 1_071.0
    tokens.authenticate(token, "10.0.0.1")
    assert tokens.get(record.token_id).last_used_at == 1_071.0


@pytest.mark.parametrize(
    ("name", "lifetime", "source"),
    [
        ("", None, ""),
        ("two\nlines", None, ""),
        ("\x9b31m", None, ""),
        ("x" * 101, None, ""),
        ("ci", 0.0, ""),
        ("ci", 1e12, ""),
        ("ci", 1, "\0"),
    ],
)
async def test_parts_that_make_no_sense_are_refused(
    tokens: Tokens, name: str, lifetime: float | None, source: str
) -> None:
    with pytest.raises(InvalidError):
        await tokens.create(name, Role.MEMBER, lifetime, source, "local user")
    assert tokens.all() == []


async def test_a_token_that_cannot_be_kept_is_not_given_out(tokens: Tokens, store: FailingStore) -> None:
    store.fail("The disk is full.")
    with pytest.raises(StoreError, match="disk is full"):
        await make(tokens)
    assert tokens.all() == []


async def test_a_revocation_holds_even_while_it_cannot_be_stored(tokens: Tokens, store: FailingStore) -> None:
    record, token = await make(tokens)
    store.fail("The disk is full.")
    with pytest.raises(StoreError):
        await tokens.revoke(record.token_id, "local user")
    with pytest.raises(AuthError, match="was revoked"):
        tokens.authenticate(token, "10.0.0.1")
    store.recover()
    assert (await store.load()).tokens[0].revoked_at is not None
