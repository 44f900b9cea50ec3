"""The seam between the services and the database.

The services keep live state in memory and write each change here; after a restart they `load` it back. A life:
`open` once, then anything, then `close` once. `write` is ordered: changes become durable in the order written.
`tests/contract/test_store.py` holds every implementation to it.

Inputs and outputs are stored in chunks as they travelled (a header of records and one body), not row by row: one
database row per batch keeps a map of many small inputs cheap.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Union

from intermodal.store.entries import EntryChange, NamedRecord, StoredEntry, StoredItem
from intermodal.store.front_journal import KeptReply
from modal._wire.messages.app import LogEntry
from modal.exception import InternalFailure

Json = dict[str, Any]


class CallKind(enum.Enum):
    RUN = "run"  #: `.remote()`: one input, one waiting client
    SPAWN = "spawn"
    MAP = "map"
    GENERATE = "generate"


@dataclass(frozen=True)
class EnvironmentRecord:
    """Whatever has a name refers to its environment by id, so that an environment can be renamed."""

    environment_id: str
    name: str
    web_suffix: str  #: part of the web addresses of its apps; "" for the default environment
    created_at: float


@dataclass(frozen=True)
class EnvironmentRemoved:
    """The environment is gone, with everything that has its id in a column `environment_id`; its apps have stopped."""

    environment_id: str
    at: float


@dataclass(frozen=True)
class AppRecord:
    app_id: str
    name: str | None
    description: str
    environment_id: str  #: en-…
    state: str  #: modal._wire.messages.app.AppState value
    session_id: str  #: the client session that owns it while ephemeral
    created_at: float
    stopped_at: float | None = None
    functions: dict[str, str] = field(default_factory=dict)  #: tag -> fu-…
    version: int = 0  #: of a deployed app: the one in force; 0 before its first deployment


@dataclass(frozen=True)
class FunctionRecord:
    """A function that can be called. That of a deployed app keeps its id while redeployments replace the rest."""

    function_id: str
    app_id: str
    spec: Json  #: encoded FunctionSpec
    body: bytes = b""  #: the pickled function when serialized
    revision_id: str = ""  #: the revision that it is an instance of; "" in an app that is not deployed


@dataclass(frozen=True)
class RevisionRecord:
    """What a function was in one deployment. Never changed."""

    revision_id: str
    app_id: str
    spec: Json  #: encoded FunctionSpec
    body: bytes = b""


@dataclass(frozen=True)
class AppVersionRecord:
    """One deployment of an app."""

    app_id: str
    version: int  #: from 1
    deployed_at: float
    deployed_by: str  #: who, for people
    client_version: str
    tag: str  #: what the user called it
    revisions: dict[str, str]  #: function tag -> revision id
    draft_id: str = ""  #: the draft that it was made from
    rollback_of: int = 0  #: the version whose revisions it took; 0: it brought its own


@dataclass(frozen=True)
class BindingRecord:
    """A function that serves one set of parameters of a class; the rest of it is the class's."""

    function_id: str
    class_id: str  #: the function that is the class
    app_id: str
    parameters: bytes  #: as in `FunctionBind`
    overrides: Json  #: encoded FunctionOverrides
    min_containers: int | None = None  #: set by `keep_warm`; None: as the class says


@dataclass(frozen=True)
class MountRecord:
    mount_id: str
    files: list[Json]  #: encoded FileEntry


@dataclass(frozen=True)
class SecretRecord:
    secret_id: str
    app_id: str
    sealed: bytes  #: encrypted JSON object of the variables


@dataclass(frozen=True)
class TokenRecord:
    """Times are seconds since the epoch."""

    token_id: str
    name: str
    role: str  #: modal._wire.messages.token.Role value
    secret_hash: bytes
    created_at: float
    created_by: str
    source: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None


@dataclass(frozen=True)
class NamedSecretRecord:
    secret_id: str
    environment_id: str
    name: str
    sealed: bytes
    created_at: float
    last_used_at: float | None = None


@dataclass(frozen=True)
class CallRecord:
    call_id: str
    function_id: str
    app_id: str
    kind: CallKind
    created_at: float
    parent_input_id: str = ""
    #: "session/idempotency key" of the request that made it, to find it again; a map has no such key, only the session
    key: str = ""
    inputs_closed: bool = False  #: no more inputs will come
    finished_at: float | None = None
    method: str = ""  #: of a class


@dataclass(frozen=True)
class InputChunk:
    """Inputs as they arrived: encoded `modal._wire.messages.call.Input`s, and their inline payloads as `body`."""

    call_id: str
    records: list[Json]
    body: bytes


@dataclass(frozen=True)
class OutputChunk:
    """Final outputs: encoded `modal._wire.messages.call.Output`s, and their inline payloads as `body`."""

    call_id: str
    records: list[Json]
    body: bytes


@dataclass(frozen=True)
class ScheduleRecord:
    """Where the schedule of a deployed function is."""

    function_id: str
    app_id: str
    spec: Json  #: as in `FunctionSpec.schedule`
    anchor: float  #: when it began
    next_run: float | None  #: when it is due next; None: it has ended


@dataclass(frozen=True)
class LogChunk:
    app_id: str
    entries: list[LogEntry]


#: What is added. A record put again replaces the one of its id.
Put = Union[
    EnvironmentRecord, AppRecord, AppVersionRecord, FunctionRecord, RevisionRecord, BindingRecord, MountRecord,
    SecretRecord, NamedSecretRecord, ScheduleRecord, TokenRecord, CallRecord, InputChunk, OutputChunk, LogChunk,
]  # fmt: skip
Change = Union[Put, EntryChange, EnvironmentRemoved]


@dataclass(frozen=True)
class OpenCall:
    """A call that had not finished when the server stopped."""

    call: CallRecord
    inputs: list[InputChunk]
    outputs: list[OutputChunk]


#: Seconds before the latest end of a call: who made a call that ended since may not have heard of it.
RECENT = 300.0


@dataclass(frozen=True)
class Loaded:
    """Everything the services start from."""

    environments: list[EnvironmentRecord]
    apps: list[AppRecord]  #: not stopped
    functions: list[FunctionRecord]  #: of those apps
    secrets: list[SecretRecord]  #: of those apps
    tokens: list[TokenRecord]  #: also those that are not accepted any more
    named_secrets: list[NamedSecretRecord]
    calls: list[OpenCall]
    bindings: list[BindingRecord] = field(default_factory=list)  #: of those apps
    schedules: list[ScheduleRecord] = field(default_factory=list)  #: of those apps, not ended
    last_log: dict[str, int] = field(default_factory=dict)  #: app id -> `seq` of its last log entry
    recent_keys: list[str] = field(default_factory=list)  #: of calls that ended within `RECENT`
    named: list[NamedRecord] = field(default_factory=list)
    replies: list[KeptReply] = field(default_factory=list)  #: to requests that may be sent again, oldest first


class Store(Protocol):
    """Raises `intermodal.store.interface.StoreError` when the database fails, from every method."""

    async def open(self) -> None:
        """Connect and bring the schema up to date."""

    async def close(self) -> None:
        """Make everything written durable and disconnect. Idempotent."""

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        """Queue changes; they are committed together with others written about the same time (a few milliseconds).

        The result may be awaited to know that they are durable, or left alone: a failed write also fails `healthy`.
        What failed is kept and written again until it succeeds, before anything later; only what can never be written
        is dropped, and logged.
        """

    def write_now(self, changes: Sequence[EntryChange], reply: KeptReply | None = None) -> None:
        """Write changes that survive the death of this process when this returns, with the reply to their request.

        Raises:
            StoreError: they cannot be written, and nothing is changed.
        """

    def healthy(self) -> str:
        """Empty while writes succeed, else one sentence saying what failed."""

    async def load(self) -> Loaded:
        """Read what is live."""

    async def function(self, function_id: str) -> FunctionRecord | None: ...

    async def mount(self, mount_id: str) -> MountRecord | None: ...

    async def call(self, call_id: str) -> CallRecord | None: ...

    async def call_by_key(self, key: str) -> CallRecord | None:
        """The call that a request with this idempotency key made."""

    async def app(self, app_id: str) -> AppRecord | None: ...

    async def stopped_apps(self, limit: int) -> list[AppRecord]:
        """The apps that stopped last, latest first; drafts are not among them."""

    async def app_versions(self, app_id: str) -> list[AppVersionRecord]:
        """The deployments of an app, oldest first."""

    async def version_of_draft(self, draft_id: str) -> AppVersionRecord | None:
        """The version that a draft was published as."""

    async def revisions(self, revision_ids: Sequence[str]) -> dict[str, RevisionRecord]:
        """Those of these revisions that exist, by id."""

    async def children(self, input_ids: Sequence[str]) -> list[CallRecord]:
        """The calls that these inputs made, oldest first."""

    async def output_records(self, call_id: str, limit: int) -> list[Json]:
        """The records of `outputs` without the payloads: the first `limit` or a few more."""

    async def dict_entries(self, dict_id: str, inline: int) -> list[StoredEntry]:
        """The entries of a dict; values of more than `inline` bytes are left out."""

    async def dict_value(self, dict_id: str, key: bytes) -> bytes | None:
        """The inline value of a key."""

    async def queue_items(self, queue_id: str, inline: int) -> list[StoredItem]:
        """The items of a queue, each partition in its order; values of more than `inline` bytes are left out."""

    async def queue_values(self, queue_id: str, partition: str, numbers: Sequence[int]) -> dict[int, bytes]:
        """The values of items by their numbers."""

    async def expire_entries(self, now: float) -> None:
        """Delete entries of dicts that have expired."""

    async def outputs(self, call_id: str) -> list[OutputChunk]:
        """Outputs of a call, in the order they were written."""

    async def logs(self, app_id: str, after: int, limit: int) -> list[LogEntry]:
        """Log entries with `seq` above `after`, oldest first."""

    async def expire(self, before: float, forget_before: float) -> int:
        """Delete what ended before a time: calls with their inputs and outputs, output, and what apps consisted of.

        Args:
            before: calls that finished, lines that were logged, apps that stopped and tokens that expired or were
                revoked before this are deleted.
            forget_before: of calls that finished before this, it is not even remembered that they existed.

        Returns:
            How many calls were deleted.
        """

    async def has_expired(self, call_id: str) -> bool:
        """Whether `expire` deleted this call, and remembers it."""

    async def reseal(self, convert: Callable[[str, bytes], bytes]) -> int:
        """Replace `sealed` of every secret by what `convert` makes of its id and that: all, or when it raises none.

        Returns:
            How many secrets there are.
        """

    async def drop_mounts(self, keep: Collection[str]) -> list[str]:
        """Delete mounts that no function refers to, other than `keep`; return their ids."""

    async def drop_bindings(self, function_ids: Collection[str]) -> None:
        """Delete these bindings."""

    async def digests(self) -> set[str]:
        """Every blob that a mount, an input, an output or an entry of a dict refers to."""


class StoreError(InternalFailure):
    """The database failed. The text is one sentence for people."""
