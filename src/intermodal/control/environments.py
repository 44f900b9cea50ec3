"""Live environments: what every name belongs to.

Tables and records refer to an environment by its id (`en-…`), people by its name, which may change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from intermodal.control.rpc import Context
from intermodal.model.ids import new_id
from intermodal.model.names import check_name
from intermodal.store.interface import EnvironmentRecord, EnvironmentRemoved, Store
from modal.exception import AuthError, InvalidError, NotFoundError

#: The environment that exists always, and that requests without a name mean.
DEFAULT_ID = "en-main"
DEFAULT_NAME = "main"
_SUFFIX = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SUFFIX_LIMIT = 32


@dataclass(slots=True, eq=False)
class Environment:
    """An environment. One object for as long as it exists, whatever it is called."""

    record: EnvironmentRecord

    @property
    def environment_id(self) -> str:
        return self.record.environment_id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def is_default(self) -> bool:
        return self.environment_id == DEFAULT_ID


class Environments:
    """Every environment.

    Args:
        store: where records are kept.
        rng: new ids are drawn from it.
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, store: Store, rng: random.Random, now: Callable[[], float]) -> None:
        self._store = store
        self._rng = rng
        self._now = now
        self._by_id: dict[str, Environment] = {}

    def restore(self, records: Iterable[EnvironmentRecord]) -> None:
        """Bring the environments back when the server starts, and make the default one the first time."""
        for record in records:
            self._by_id[record.environment_id] = Environment(record)
        if DEFAULT_ID not in self._by_id:
            default = EnvironmentRecord(DEFAULT_ID, DEFAULT_NAME, "", self._now())
            self._by_id[DEFAULT_ID] = Environment(default)
            self._store.write([default])

    def all(self) -> list[Environment]:
        """The default one first, the others by name."""
        return sorted(self._by_id.values(), key=lambda one: (not one.is_default, one.name))

    def get(self, environment_id: str) -> Environment:
        """The environment of an id. Raises `NotFoundError`."""
        try:
            return self._by_id[environment_id]
        except KeyError:
            raise NotFoundError(f"There is no environment {environment_id!r}; it was deleted.") from None

    def name_of(self, environment_id: str) -> str:
        """Its name, for people; that of one that was deleted is its id."""
        found = self._by_id.get(environment_id)
        return found.name if found is not None else environment_id

    def require(self, name: str) -> Environment:
        """The environment of a name; "" is the default one. Raises `NotFoundError`, naming those that exist."""
        found = self._find(name or DEFAULT_NAME)
        if found is None:
            known = ", ".join(one.name for one in self.all())
            raise NotFoundError(
                f"There is no environment {name[:100]!r}; there are: {known}. "
                "`modal environment create` makes one, --env or MODAL_ENVIRONMENT chooses one."
            )
        return found

    def meant_by(self, ctx: Context, name: str) -> Environment:
        """The environment that a request means by a name: for code in a container its app's own, and no other.

        Raises:
            NotFoundError: there is none of that name.
            AuthError: code in a container asks for another one than its own.
        """
        if ctx.principal.kind != "container":
            return self.require(name)
        own = self.get(ctx.principal.environment_id)
        if name not in ("", own.name):
            raise AuthError(f"Code in a container can only use the environment of its app, {own.name!r}.")
        return own

    async def create(self, name: str) -> Environment:
        """Make an environment. Raises `InvalidError` for a name that is taken or is none."""
        self._check_new_name(name)
        record = EnvironmentRecord(new_id("en", self._rng), name, self._suffix_for(name), self._now())
        made = self._by_id[record.environment_id] = Environment(record)
        await self._store.write([record])
        return made

    async def update(self, environment: Environment, name: str | None, web_suffix: str | None) -> None:
        """Change the name, the web suffix, or both. Raises `InvalidError` for one that cannot be."""
        record = environment.record
        if name is not None and name != record.name:
            if environment.is_default:
                raise InvalidError(f"The environment {DEFAULT_NAME!r} is the default one and cannot be renamed.")
            self._check_new_name(name)
            record = replace(record, name=name)
        if web_suffix is not None and web_suffix != record.web_suffix:
            self._check_suffix(web_suffix)
            record = replace(record, web_suffix=web_suffix)
        environment.record = record
        await self._store.write([record])

    def remove(self, environment: Environment) -> Awaitable[None]:
        """Delete the environment with the records of all that is named in it, in one transaction.

        Its live apps still have to be stopped. Wait for the result to know that it is durable.

        Raises:
            InvalidError: it is the default one.
        """
        if environment.is_default:
            raise InvalidError(f"The environment {DEFAULT_NAME!r} is the default one and cannot be deleted.")
        self._by_id.pop(environment.environment_id, None)
        return self._store.write([EnvironmentRemoved(environment.environment_id, self._now())])

    def _find(self, name: str) -> Environment | None:
        return next((one for one in self._by_id.values() if one.name == name), None)

    def _check_new_name(self, name: str) -> None:
        check_name("an environment", name)
        if self._find(name) is not None:
            raise InvalidError(f"There is an environment {name!r} already.")

    def _check_suffix(self, suffix: str) -> None:
        if suffix and (not _SUFFIX.fullmatch(suffix) or len(suffix) > _SUFFIX_LIMIT):
            raise InvalidError(
                f"A web suffix must have at most {_SUFFIX_LIMIT} lower-case letters, digits and single dashes between "
                f"them, not {suffix[:100]!r}."
            )
        taken = next((one for one in self._by_id.values() if one.record.web_suffix == suffix), None)
        if taken is not None:
            raise InvalidError(f"The web suffix {suffix!r} is that of the environment {taken.name!r}.")

    def _suffix_for(self, name: str) -> str:
        """A web suffix like the name that no other environment has."""
        base = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[: _SUFFIX_LIMIT - 4].strip("-") or "env"
        taken = {one.record.web_suffix for one in self._by_id.values()}
        candidates = (f"{base}-{number}" if number > 1 else base for number in range(1, len(taken) + 2))
        return next(suffix for suffix in candidates if suffix not in taken)
