"""Objects that have a name in an environment, or live as long as a context: dicts, queues, volumes and their like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .. import _event_loop
from .._runtime_context import container_context
from .._sync import is_async, on_loop
from .._wire.messages.named import ObjectKind
from ..exception import InvalidError, NotFoundError
from .client import current_environment
from .object import Object

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._wire.client import RpcClient
    from .._wire.messages.common import Method
    from .client import Client
    from .resolver import Resolver

Response = TypeVar("Response")


class Named(Object):
    """An object that is found by its name."""

    _kind: ObjectKind
    _name = ""
    _environment: Optional[str] = None
    _create_if_missing = False
    _client: Optional[Client] = None
    _rpc: Optional[RpcClient] = None
    _generation = 0  #: of the event loop that `_rpc` belongs to

    @classmethod
    def _named(cls, name: str, environment: Optional[str], create_if_missing: bool) -> Self:
        if not isinstance(name, str) or not name:
            raise InvalidError(f"{cls.__name__}.from_name takes the name of a {cls._kind.value}, not {name!r}.")
        obj = cls._new(f"{cls.__name__}.from_name({name!r})")
        obj._name, obj._environment, obj._create_if_missing = name, environment, bool(create_if_missing)
        return obj

    @classmethod
    async def _lookup(cls, obj: Self, client: Optional[Client]) -> Self:
        await obj._bind(client)
        return obj

    @classmethod
    async def _delete(cls, name: str, client: Optional[Client], environment: Optional[str]) -> None:
        from .._wire.messages.named import NAMED_DELETE, NamedDelete

        rpc = await _connection(client)
        await rpc.unary(NAMED_DELETE, NamedDelete(cls._kind, name, current_environment(environment)))

    @classmethod
    async def _rename(cls, name: str, new_name: str, client: Optional[Client], environment: Optional[str]) -> None:
        from .._wire.messages.named import NAMED_RENAME, NamedRename

        rpc = await _connection(client)
        await rpc.unary(NAMED_RENAME, NamedRename(cls._kind, name, new_name, current_environment(environment)))

    @classmethod
    @asynccontextmanager
    async def _ephemeral(cls, client: Optional[Client], environment: Optional[str]) -> AsyncIterator[Self]:
        from .._wire.messages.named import EPHEMERAL_CREATE, EPHEMERAL_RELEASE, EphemeralCreate, EphemeralRelease

        rpc = await _connection(client)
        made, _ = await rpc.unary(EPHEMERAL_CREATE, EphemeralCreate(cls._kind, current_environment(environment)))
        obj = cls._new(f"{cls.__name__}.ephemeral()")
        obj._client, obj._rpc, obj._generation = client, rpc, _event_loop.generation
        obj._object_id = made.object_id
        try:
            yield obj
        finally:
            with suppress(NotFoundError):  # it went with its environment, or while this client was away for long
                await rpc.unary(EPHEMERAL_RELEASE, EphemeralRelease(made.object_id))

    @property
    def object_id(self) -> str:
        """The id at the server. Raises InvalidError before the object is found, unless it is mounted here."""
        self._object_id = self._object_id or self._mounted_id()
        return super().object_id

    def _mounted_id(self) -> Optional[str]:
        """The id of the object that this container's function had by this name when it was made, and has mounted."""
        context = container_context()
        if context is None or not context.mounts or not self._name:
            return None
        from .._wire.codec import decode
        from .._wire.messages.function import VolumeMount

        wanted = (self._kind, self._name, self._environment or context.environment)
        for mount in (decode(VolumeMount, one) for one in context.mounts):
            if (mount.kind, mount.name, mount.environment or context.environment) == wanted:
                return mount.object_id
        return None

    async def _hydrate(self, client: Optional[Client]) -> None:
        await self._bind(client)

    async def _load(self, resolver: Resolver) -> str:
        # One that was found keeps its identity, whatever has its name now; an ephemeral one has no name.
        return self._object_id or await self._find(resolver.client)

    async def _bind(self, client: Optional[Client] = None) -> tuple[RpcClient, str]:
        """The connection and the id; on the bridge's loop only.

        Raises:
            NotFoundError: there is no object of that name.
        """
        if self._rpc is None or self._generation != _event_loop.generation:
            self._client = client or self._client
            self._rpc = await _connection(self._client)
            self._generation = _event_loop.generation
        if self._object_id is None:
            self._object_id = await self._find(self._rpc)
        return self._rpc, self._object_id

    async def _ask(
        self, method: Method[Any, Response], make: Callable[[str], Any], body: bytes = b"", key: str = ""
    ) -> tuple[Response, bytes]:
        """Call a unary method that the server answers at once; in the caller, see `_sync.in_caller`.

        Args:
            make: makes the request of the object's id.
            key: idempotency key of the call; default: a new one.
        """
        rpc, object_id = self._rpc, self._object_id
        if rpc is None or object_id is None or self._generation != _event_loop.generation:
            bound: tuple[RpcClient, str] = await on_loop(self._bind())
            rpc, object_id = bound
        request, key = make(object_id), key or rpc.new_key(method)
        if rpc.quick is not None and not await is_async():
            answer = rpc.quick.unary(method, request, body, key)
            if answer is not None:
                return answer
        return await on_loop(rpc.unary(method, request, body, key=key))

    async def _find(self, rpc: RpcClient) -> str:
        from .._wire.messages.named import NAMED_FIND, NAMED_GET, NamedGet

        mounted = self._mounted_id()
        if mounted is not None:
            return mounted
        request = NamedGet(self._kind, self._name, current_environment(self._environment), self._create_if_missing)
        # Who may only read can find what is there.
        found, _ = await rpc.unary(NAMED_GET if self._create_if_missing else NAMED_FIND, request)
        return found.object_id

    def __reduce__(self) -> tuple[Any, ...]:
        # Objects may be passed to functions, and be items of one another: what travels is how to find them.
        state = {name: value for name, value in self.__dict__.items() if name in _TRAVELS}
        return _revive, (type(self), self._what, state)


#: What tells which object it is; not the connection that it is used through here.
_TRAVELS = ("_object_id", "_name", "_environment", "_create_if_missing", "_is_read_only")


def _revive(cls: type[Named], what: str, state: dict[str, Any]) -> Named:
    obj = cls._new(what)
    obj.__dict__.update(state)
    return obj


async def _connection(client: Optional[Client]) -> RpcClient:
    from .client import default_client

    return await (client or default_client())._rpc()
