"""RPC: secrets, anonymous ones of an app and named ones of an environment. No reply holds a value."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from intermodal.control.access import require_admin, require_app, require_user
from intermodal.control.apps import App, Apps
from intermodal.control.environments import Environment
from intermodal.control.rpc import Context, Dispatcher
from intermodal.model.ids import new_id
from intermodal.model.names import check_name
from intermodal.store.interface import NamedSecretRecord, SecretRecord, Store, StoreError
from intermodal.store.key_rotation import rotate_key
from intermodal.store.secret_box import SecretBox
from modal._wire.messages.common import Empty
from modal._wire.messages.secret import (
    SECRET_CREATE,
    SECRET_LIST,
    SECRET_LOOKUP,
    SECRET_PUT,
    SECRET_ROTATE_KEY,
    KeyRotated,
    SecretCreate,
    SecretEnvironment,
    SecretInfo,
    SecretList,
    SecretLookup,
    SecretPut,
    SecretRef,
)
from modal.exception import InvalidError, NotFoundError

log = logging.getLogger(__name__)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VALUE_BYTES = 128 * 1024 - 1  # Linux starts no program with a longer variable
_SECRET_BYTES = 256 * 1024  # of one secret, and of all that a container gets
_NOTE_USE_EVERY = 60.0  # seconds


@dataclass(slots=True, eq=False)
class Secret:
    """A secret, open. An anonymous one belongs to an app, a named one to an environment."""

    secret_id: str
    env: dict[str, str] | None  #: None: it cannot be decrypted
    app_id: str = ""
    environment_id: str = ""
    name: str = ""
    created_at: float = 0.0
    last_used_at: float | None = None


class SecretService:
    """Secrets are kept sealed in the database and open only in the server's memory.

    Args:
        box: seals and opens them.
        rng: new ids are drawn from it.
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, store: Store, box: SecretBox, apps: Apps, rng: random.Random, now: Callable[[], float]) -> None:
        self._store = store
        self._box = box
        self._apps = apps
        self._rng = rng
        self._now = now
        self._secrets: dict[str, Secret] = {}
        self._named: dict[tuple[str, str], Secret] = {}  # environment id, name
        self._is_rotating = False

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(SECRET_CREATE, self.create)
        dispatcher.register(SECRET_PUT, self.put)
        dispatcher.register(SECRET_LOOKUP, self.lookup)
        dispatcher.register(SECRET_LIST, self.list_secrets)
        dispatcher.register(SECRET_ROTATE_KEY, self.rotate_key)

    def restore(self, anonymous: Iterable[SecretRecord], named: Iterable[NamedSecretRecord]) -> None:
        """Bring the secrets back when the server starts; one that cannot be decrypted says so when it is used."""
        for record in anonymous:
            env = self._unseal(record.secret_id, record.sealed)
            self._secrets[record.secret_id] = Secret(record.secret_id, env, record.app_id)
        for one in named:
            env = self._unseal(one.name, one.sealed)
            secret = Secret(
                one.secret_id,
                env,
                environment_id=one.environment_id,
                name=one.name,
                created_at=one.created_at,
                last_used_at=one.last_used_at,
            )
            self._secrets[one.secret_id] = self._named[one.environment_id, one.name] = secret

    def _unseal(self, what: str, sealed: bytes) -> dict[str, str] | None:
        try:
            return self._box.unseal(sealed)
        except StoreError as error:
            log.error("secret %s: %s", what, error)
            return None

    # -- requests ----------------------------------------------------------------------------------------------

    async def create(self, ctx: Context, request: SecretCreate, body: bytes) -> SecretRef:
        self._apps.get(request.app_id)
        require_app(ctx, request.app_id)
        check_variables(request.env)
        secret = Secret(new_id("st", self._rng), dict(request.env), request.app_id)
        self._secrets[secret.secret_id] = secret
        await self._store.write([SecretRecord(secret.secret_id, request.app_id, self._box.seal(request.env))])
        return SecretRef(secret.secret_id)

    async def put(self, ctx: Context, request: SecretPut, body: bytes) -> SecretRef:
        require_user(ctx)
        environment = self._apps.environments.require(request.environment)
        check_name("a secret", request.name)
        check_variables(request.env)
        if not request.env:
            raise InvalidError(f"The secret {request.name!r} has no variables; give it at least one KEY=VALUE.")
        key = (environment.environment_id, request.name)
        secret = self._named.get(key)
        if secret is None:
            secret = Secret(new_id("sr", self._rng), None, "", *key, created_at=self._now())
            self._secrets[secret.secret_id] = self._named[key] = secret
        elif not request.overwrite:
            raise InvalidError(
                f"There is a secret {request.name!r} in the environment {environment.name!r} already; --force replaces "
                "all its variables."
            )
        secret.env = dict(request.env)
        await self._save(secret)
        return SecretRef(secret.secret_id)

    async def lookup(self, ctx: Context, request: SecretLookup, body: bytes) -> SecretRef:
        """Code in a container may ask, too: it gets to know the id, and that the variables are there."""
        check_name("a secret", request.name)
        if request.app_id and not request.environment and ctx.principal.kind != "container":
            environment = self._apps.get(request.app_id).environment
        else:
            environment = self._apps.environments.meant_by(ctx, request.environment)
        secret = self._named.get((environment.environment_id, request.name))
        if secret is None:
            raise NotFoundError(
                f"There is no secret {request.name!r} in the environment {environment.name!r}. Create it with: "
                f"{_command(request.name, environment)}"
            )
        missing = [key[:100] for key in request.required_keys if key not in _opened(secret)]
        if missing:
            raise InvalidError(
                f"The secret {request.name!r} in the environment {environment.name!r} lacks {', '.join(missing[:20])}. "
                f"Set all its variables anew with: {_command(request.name, environment)} --force"
            )
        return SecretRef(secret.secret_id)

    async def list_secrets(self, ctx: Context, request: SecretEnvironment, body: bytes) -> SecretList:
        require_user(ctx)
        environment = self._apps.environments.require(request.environment)
        of_it = [one for one in self._named.values() if one.environment_id == environment.environment_id]
        infos = [
            SecretInfo(one.name, one.secret_id, one.created_at, one.last_used_at)
            for one in sorted(of_it, key=lambda one: one.name)
        ]
        return SecretList(environment.name, infos)

    async def rotate_key(self, ctx: Context, request: Empty, body: bytes) -> KeyRotated:
        require_admin(ctx)
        if self._is_rotating:
            raise InvalidError("The key is being changed already.")
        self._is_rotating = True
        try:
            count = await rotate_key(self._store, self._box)
        finally:
            self._is_rotating = False
        log.info("%d secrets were encrypted with a new key", count)
        return KeyRotated(count)

    # -- for the rest of the server ----------------------------------------------------------------------------

    def env(self, secret_id: str) -> dict[str, str]:
        """The variables. Raises `NotFoundError`; `InvalidError` when it cannot be decrypted."""
        return _opened(self._get(secret_id))

    def merged(self, secret_ids: Iterable[str]) -> dict[str, str]:
        """The variables of several secrets, of which later ones win.

        Raises:
            NotFoundError: there is no such secret.
            InvalidError: they are too large together, or one cannot be decrypted.
        """
        variables: dict[str, str] = {}
        for secret_id in secret_ids:
            variables.update(self.env(secret_id))
        if _size(variables) > _SECRET_BYTES:
            raise InvalidError(f"The secrets of one function hold at most {_SECRET_BYTES // 1024} KiB together.")
        return variables

    def note_use(self, secret_ids: Iterable[str]) -> None:
        """A container or a build gets these now."""
        now = self._now()
        for secret_id in secret_ids:
            secret = self._secrets.get(secret_id)
            if secret is not None and secret.name and now - (secret.last_used_at or 0.0) >= _NOTE_USE_EVERY:
                secret.last_used_at = now
                if secret.env is not None:
                    self._save(secret)

    def require_usable(self, secret_id: str, app: App) -> None:
        """Raise `NotFoundError` unless code of this app may give the secret to containers."""
        secret = self._get(secret_id)
        if secret.app_id != app.app_id and secret.environment_id != app.environment.environment_id:
            raise NotFoundError(f"There is no secret {secret_id!r} in this app or its environment.")

    def adopt(self, draft_id: str, app_id: str) -> list[SecretRecord]:
        """What was made for a draft belongs to the deployed app from now on; returns what is to be written for that."""
        changes = []
        for secret in self._secrets.values():
            if secret.app_id == draft_id and secret.env is not None:
                secret.app_id = app_id
                changes.append(SecretRecord(secret.secret_id, app_id, self._box.seal(secret.env)))
        return changes

    def forget_app(self, app_id: str) -> None:
        """Drop the secrets that lived as long as this app."""
        for secret_id in [key for key, one in self._secrets.items() if one.app_id == app_id]:
            del self._secrets[secret_id]

    def forget_environment(self, environment: Environment) -> None:
        """Drop the secrets of an environment that was deleted."""
        for key in [key for key in self._named if key[0] == environment.environment_id]:
            del self._secrets[self._named.pop(key).secret_id]

    def _get(self, secret_id: str) -> Secret:
        try:
            return self._secrets[secret_id]
        except KeyError:
            raise NotFoundError(
                f"There is no secret {secret_id[:100]!r}; it was deleted, or the id is wrong."
            ) from None

    def _save(self, secret: Secret) -> Awaitable[None]:
        # Sealed each time: the key may have changed since the last.
        record = NamedSecretRecord(
            secret.secret_id,
            secret.environment_id,
            secret.name,
            self._box.seal(_opened(secret)),
            secret.created_at,
            secret.last_used_at,
        )
        return self._store.write([record])


def check_variables(env: dict[str, str]) -> None:
    """Raise `InvalidError`, which never holds a value, for what cannot be environment variables."""
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidError(
                f"{name[:100]!r} is no name of an environment variable; use letters, digits and underscores."
            )
        if "\0" in value:
            raise InvalidError(f"The value of {name[:100]} contains a zero byte.")
        if len(name) + 1 + len(value.encode(errors="replace")) > _VALUE_BYTES:
            raise InvalidError(f"The value of {name[:100]} is too long: Linux allows {_VALUE_BYTES // 1024} KiB.")
    if _size(env) > _SECRET_BYTES:
        raise InvalidError(f"A secret holds at most {_SECRET_BYTES // 1024} KiB.")


def _size(env: dict[str, str]) -> int:
    """Bytes as they travel to a container."""
    return len(json.dumps(env, ensure_ascii=False).encode(errors="replace"))


def _opened(secret: Secret) -> dict[str, str]:
    if secret.env is None:
        raise InvalidError(
            f"The secret {secret.name or secret.secret_id!r} cannot be decrypted: the server's key file is not the one "
            "it was stored with. Restore that file, or create the secret again with --force."
        )
    return secret.env


def _command(name: str, environment: Environment) -> str:
    env = "" if environment.is_default else f" --env {environment.name}"
    return f"modal secret create {name} KEY=VALUE{env}"
