"""RPC: named and ephemeral objects, whatever they hold."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from intermodal.control.access import require_own_environment
from intermodal.control.environments import Environment, Environments
from intermodal.control.rpc import LOCAL, Context, Dispatcher, Principal
from intermodal.control.rpc_replies import kept_reply
from intermodal.model.ids import new_id
from intermodal.model.names import check_name
from intermodal.store.entries import DictWrite, EntryChange, NamedRecord
from intermodal.store.front_journal import KeptReply
from intermodal.store.interface import Store, StoreError
from modal._wire.messages.common import Empty
from modal._wire.messages.dict import DictEntry
from modal._wire.messages.named import (
    EPHEMERAL_CREATE,
    EPHEMERAL_RELEASE,
    NAMED_DELETE,
    NAMED_FIND,
    NAMED_GET,
    NAMED_LIST,
    NAMED_RENAME,
    EphemeralCreate,
    EphemeralRelease,
    NamedDelete,
    NamedGet,
    NamedHandle,
    NamedInfo,
    NamedList,
    NamedListed,
    NamedRename,
    ObjectKind,
)
from modal.exception import InvalidError, NotFoundError

log = logging.getLogger(__name__)

#: How their ids begin.
PREFIXES = {
    ObjectKind.DICT: "di",
    ObjectKind.QUEUE: "qu",
    ObjectKind.VOLUME: "vo",
    ObjectKind.NETWORK_FILE_SYSTEM: "sr",
}
#: What people call them.
_WORDS = {ObjectKind.NETWORK_FILE_SYSTEM.value: "network file system"}


class Holder(Protocol):
    """What keeps the content of one kind of object."""

    def created(self, object_id: str) -> None:
        """The object is new; also called for each that there is when the server starts."""

    def deleted(self, object_id: str) -> None:
        """The object is gone: forget its content and tell who waits for it."""


class NamedService:
    """Every named and ephemeral object by id, and by kind, environment and name.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, store: Store, environments: Environments, rng: random.Random, now: Callable[[], float]) -> None:
        self._store = store
        self._environments = environments
        self._rng = rng
        self._now = now
        self._by_id: dict[str, NamedRecord] = {}
        self._by_name: dict[tuple[str, str, str], NamedRecord] = {}
        self._present: set[str] = set()  # sessions
        self.holders: dict[ObjectKind, Holder] = {}
        #: Makes what a new dict begins with: of its id, its entries and their bytes.
        self.make_beginning: Callable[[str, Sequence[DictEntry], bytes], DictWrite] | None = None

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(NAMED_GET, self.get)
        dispatcher.register(NAMED_FIND, self.find)
        dispatcher.register(NAMED_DELETE, self.delete)
        dispatcher.register(NAMED_RENAME, self.rename)
        dispatcher.register(NAMED_LIST, self.list)
        dispatcher.register(EPHEMERAL_CREATE, self.create_ephemeral)
        dispatcher.register(EPHEMERAL_RELEASE, self.release)
        dispatcher.session_opened.append(self.session_opened)
        dispatcher.session_closed.append(self.session_closed)

    def restore(self, records: Iterable[NamedRecord], grace: float) -> None:
        """Take what was stored. Clients of ephemeral objects have `grace` seconds to come back."""
        for record in records:
            self._add(record)
            self.holders[ObjectKind(record.kind)].created(record.object_id)
        owners = {record.session_id for record in self._by_id.values() if record.session_id}

        def check() -> None:
            for session_id in owners - self._present:
                self.session_closed(session_id, LOCAL)

        if owners:
            asyncio.get_running_loop().call_later(grace, check)

    def require_object(self, ctx: Context, kind: ObjectKind, object_id: str) -> NamedRecord:
        """The record of an object that the caller may use.

        Raises:
            NotFoundError: there is no such object of this kind.
            AuthError: the caller is a container of another environment.
        """
        record = self._by_id.get(object_id)
        if record is None or record.kind != kind.value:
            raise NotFoundError(f"There is no {word_of(kind)} {object_id[:60]!r}; it was deleted, or never existed.")
        require_own_environment(ctx, record.environment_id)
        return record

    def require_mountable(self, object_id: str, environment_id: str) -> None:
        """Raise `NotFoundError` unless this is a volume or network file system of the environment."""
        record = self._by_id.get(object_id)
        kinds = (ObjectKind.VOLUME.value, ObjectKind.NETWORK_FILE_SYSTEM.value)
        if record is None or record.kind not in kinds or record.environment_id != environment_id:
            raise NotFoundError(f"There is no volume {object_id[:60]!r} in the app's environment; it may be deleted.")

    def exists(self, object_id: str) -> bool:
        return object_id in self._by_id

    # -- requests ----------------------------------------------------------------------------------------------

    def get(self, ctx: Context, request: NamedGet, body: bytes) -> NamedHandle:
        environment = self._environments.meant_by(ctx, request.environment)
        check_name(f"a {word_of(request.kind)}", request.name)
        record = self._by_name.get((request.kind.value, environment.environment_id, request.name))
        if record is not None:
            return NamedHandle(record.object_id)
        if not request.create_if_missing:
            raise NotFoundError(
                f"There is no {word_of(request.kind)} {request.name!r} in the environment {environment.name!r}. "
                f"Make it with `modal {request.kind.value} create {request.name}`, or with create_if_missing=True."
            )
        return self._create(ctx, request.kind, environment, request.name, "", request.entries, body)

    def find(self, ctx: Context, request: NamedGet, body: bytes) -> NamedHandle:
        return self.get(ctx, replace(request, create_if_missing=False), body)

    def delete(self, ctx: Context, request: NamedDelete, body: bytes) -> Empty:
        self._delete(self._require(ctx, request.kind, request.environment, request.name), kept_reply(ctx, Empty()))
        return Empty()

    def rename(self, ctx: Context, request: NamedRename, body: bytes) -> Empty:
        record = self._require(ctx, request.kind, request.environment, request.name)
        check_name(f"a {word_of(request.kind)}", request.new_name)
        at = (record.kind, record.environment_id, request.new_name)
        if self._by_name.get(at, record) is not record:
            raise InvalidError(f"There is a {word_of(request.kind)} {request.new_name!r} already.")
        renamed = replace(record, name=request.new_name)
        self._store.write_now([renamed], kept_reply(ctx, Empty()))
        del self._by_name[record.kind, record.environment_id, record.name]
        self._add(renamed)
        return Empty()

    def _require(self, ctx: Context, kind: ObjectKind, environment_name: str, name: str) -> NamedRecord:
        environment = self._environments.meant_by(ctx, environment_name)
        record = self._by_name.get((kind.value, environment.environment_id, name))
        if record is None:
            raise NotFoundError(f"There is no {word_of(kind)} {name[:70]!r} in the environment {environment.name!r}.")
        return record

    def list(self, ctx: Context, request: NamedList, body: bytes) -> NamedListed:
        environment = self._environments.meant_by(ctx, request.environment)
        at = (request.kind.value, environment.environment_id)
        found = sorted((record for key, record in self._by_name.items() if key[:2] == at), key=lambda one: one.name)
        return NamedListed([NamedInfo(one.name, one.object_id, one.created_at) for one in found])

    def create_ephemeral(self, ctx: Context, request: EphemeralCreate, body: bytes) -> NamedHandle:
        environment = self._environments.meant_by(ctx, request.environment)
        return self._create(ctx, request.kind, environment, "", ctx.session_id)

    def release(self, ctx: Context, request: EphemeralRelease, body: bytes) -> Empty:
        record = self._by_id.get(request.object_id)
        if record is None:
            raise NotFoundError(f"There is no ephemeral object {request.object_id[:60]!r}.")
        require_own_environment(ctx, record.environment_id)
        if record.name:
            raise InvalidError(f"The {record.kind} {record.name!r} is not ephemeral; delete it by its name.")
        self._delete(record, kept_reply(ctx, Empty()))
        return Empty()

    # -- life --------------------------------------------------------------------------------------------------

    def session_opened(self, session_id: str, principal: Principal) -> None:
        """A client is connected."""
        self._present.add(session_id)

    def session_closed(self, session_id: str, principal: Principal) -> None:
        """A client is gone for good: so are its ephemeral objects. What cannot be deleted is after the next start."""
        self._present.discard(session_id)
        for record in [one for one in self._by_id.values() if one.session_id == session_id]:
            try:
                self._delete(record)
            except StoreError as error:
                log.error("the ephemeral %s %s could not be deleted: %s", record.kind, record.object_id, error)

    def environment_removed(self, environment: Environment) -> None:
        """All that was in it is deleted."""
        for record in [one for one in self._by_id.values() if one.environment_id == environment.environment_id]:
            self._delete(record)

    def _create(
        self,
        ctx: Context,
        kind: ObjectKind,
        environment: Environment,
        name: str,
        session_id: str,
        entries: Sequence[DictEntry] = (),
        body: bytes = b"",
    ) -> NamedHandle:
        object_id = new_id(PREFIXES[kind], self._rng)
        record = NamedRecord(object_id, kind.value, environment.environment_id, name, session_id, self._now())
        changes: list[EntryChange] = [record]
        if entries:
            if kind is not ObjectKind.DICT or self.make_beginning is None:
                raise InvalidError(f"A {word_of(kind)} begins without entries.")
            changes.append(self.make_beginning(object_id, entries, body))
        handle = NamedHandle(object_id, True)
        self._store.write_now(changes, kept_reply(ctx, handle))
        self._add(record)
        self.holders[kind].created(object_id)
        return handle

    def _add(self, record: NamedRecord) -> None:
        self._by_id[record.object_id] = record
        if record.name:
            self._by_name[record.kind, record.environment_id, record.name] = record

    def _delete(self, record: NamedRecord, reply: KeptReply | None = None) -> None:
        self._store.write_now([replace(record, deleted=True)], reply)
        del self._by_id[record.object_id]
        self._by_name.pop((record.kind, record.environment_id, record.name), None)
        self.holders[ObjectKind(record.kind)].deleted(record.object_id)


def word_of(kind: ObjectKind) -> str:
    """What messages call an object of this kind."""
    return _WORDS.get(kind.value, kind.value)
