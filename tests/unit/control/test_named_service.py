from __future__ import annotations

import random
from typing import Any

import pytest

from intermodal.control.environments import Environments
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import LOCAL, Context
from intermodal.store.failing import FailingStore
from modal._wire.codec import encode
from modal._wire.messages.common import Empty
from modal._wire.messages.named import (
    EphemeralCreate,
    EphemeralRelease,
    NamedDelete,
    NamedGet,
    NamedRename,
    ObjectKind,
)


class Deleted(list[str]):
    """A holder that keeps what was deleted."""

    def created(self, object_id: str) -> None:
        return

    def deleted(self, object_id: str) -> None:
        self.append(object_id)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
async def named(store: FailingStore) -> NamedService:
    rng = random.Random(1)
    environments = Environments(store, rng, lambda: 0.0)
    environments.restore([])
    service = NamedService(store, environments, rng, lambda: 0.0)
    service.holders[ObjectKind.QUEUE] = Deleted()
    return service


def request(key: str, session: str = "se-1") -> Context:
    return Context(session, LOCAL, None, key, (session, key))


async def test_the_reply_of_whatever_changes_something_is_stored_with_the_change(
    named: NamedService, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[Any] = []
    monkeypatch.setattr(store, "write_now", lambda changes, reply=None: replies.append(reply))
    queue = ObjectKind.QUEUE
    named.get(request("a"), NamedGet(queue, "one", "main", create_if_missing=True), b"")
    ephemeral = named.create_ephemeral(request("b"), EphemeralCreate(queue, "main"), b"").object_id
    named.rename(request("c"), NamedRename(queue, "one", "two", "main"), b"")
    named.delete(request("d"), NamedDelete(queue, "two", "main"), b"")
    named.release(request("e"), EphemeralRelease(ephemeral), b"")
    assert [reply.key for reply in replies] == [("se-1", key) for key in "abcde"]
    assert [reply.outcome for reply in replies[2:]] == [(encode(Empty()), b"")] * 3


async def test_an_object_that_cannot_be_deleted_keeps_no_other_of_its_session(
    named: NamedService, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [
        named.create_ephemeral(request(key), EphemeralCreate(ObjectKind.QUEUE, "main"), b"").object_id for key in "abc"
    ]
    real = store.write_now

    def write_now(changes: Any, reply: Any = None) -> None:
        store.fail("no space is left") if changes[0].object_id == ids[0] else store.recover()
        real(changes, reply)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_now", write_now)
        named.session_closed("se-1", LOCAL)
    assert named.holders[ObjectKind.QUEUE] == ids[1:]
