"""`modal.Secret`: environment variables that containers and build steps get."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, Union

from .._renamed import renamed_parameter
from .._wire.messages.secret import SECRET_CREATE, SECRET_LOOKUP, SecretCreate, SecretLookup
from ..exception import InvalidError
from .client import current_environment, default_client
from .object import Object
from .secret_env import check_env, find_dotenv, read_dotenv

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .client import Client
    from .resolver import Resolver


class Secret(Object):
    """Environment variables with values that must not be seen: they are kept apart from the code and never logged.

    Make one with `from_dict`, `from_local_environ` or `from_dotenv`, or name one that `modal secret create` made with
    `from_name`, and pass it as `secrets=[...]`.
    """

    _env: dict[str, str]  #: of an anonymous secret
    _named: Optional[SecretLookup] = None

    @classmethod
    def _of(cls, env: dict[str, str], what: str) -> Secret:
        secret = cls._new(what)
        secret._env = env
        return secret

    @staticmethod
    def from_dict(env_dict: dict[str, Union[str, None]] = {}) -> Secret:
        """Make a secret of a dict (str to str). A value of None is left out.

        Raises:
            InvalidError: for a bad name or a value that is no string.
        """
        return Secret._of(check_env(env_dict, "Secret.from_dict"), "Secret.from_dict()")

    @staticmethod
    def from_local_environ(env_keys: list[str]) -> Secret:
        """Make a secret of environment variables (list of str) of this process.

        In a container, where they need not exist, it is empty: there the secret is already applied.

        Raises:
            InvalidError: if one is not set.
        """
        from .._runtime_context import is_local

        if not isinstance(env_keys, (list, tuple)) or not all(isinstance(key, str) for key in env_keys):
            raise InvalidError(f"Secret.from_local_environ takes a list of names, not {env_keys!r}.")
        missing = [key for key in env_keys if key not in os.environ]
        if missing and is_local():
            names = ", ".join(missing)
            raise InvalidError(
                f"Secret.from_local_environ: {names} is not set in the environment; set it and run again."
            )
        env = {key: os.environ[key] for key in env_keys if key in os.environ}
        return Secret._of(check_env(env, "Secret.from_local_environ"), "Secret.from_local_environ()")

    @staticmethod
    def from_dotenv(path: Any = None, *, filename: str = ".env") -> Secret:
        """Make a secret of a `.env` file.

        Args:
            path: file or directory (str or Path) to start from; its directory and those above it are searched. Default:
                the working directory.
            filename: name of the file.

        In a container, where the file need not exist, it is empty: there the secret is already applied.

        Raises:
            NotFoundError: if there is no such file.
            InvalidError: for a line that cannot be understood.
        """
        from .._runtime_context import is_local

        env = read_dotenv(find_dotenv(path, filename)) if is_local() else {}
        return Secret._of(env, f"Secret.from_dotenv(filename={filename!r})")

    @staticmethod
    @renamed_parameter("label", "name")
    def from_name(
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        required_keys: list[str] = [],
    ) -> Secret:
        """A secret that was created before, with `modal secret create`, by its name.

        Whether it exists is seen when it is used or hydrated. Containers get the values that it has when they start.

        Args:
            name: its name.
            namespace: no effect.
            environment_name: the environment (str) that it is in; default: that of the app that uses it.
            required_keys: variables (list of str) that it must have.

        Raises:
            InvalidError: an argument is of the wrong kind; later, when a required variable is missing.
            NotFoundError: later, when there is no such secret.
        """
        if not isinstance(name, str) or not name:
            raise InvalidError(f"Secret.from_name takes a name, which is a string that is not empty, not {name!r}.")
        if not isinstance(required_keys, (list, tuple)) or not all(isinstance(key, str) for key in required_keys):
            raise InvalidError(f"Secret.from_name: required_keys must be a list of names, not {required_keys!r}.")
        if environment_name is not None and not isinstance(environment_name, str):
            raise InvalidError(f"Secret.from_name: environment_name must be a string, not {environment_name!r}.")
        secret = Secret._of({}, f"Secret.from_name({name!r})")
        secret._named = SecretLookup(name, environment_name or "", list(required_keys))
        return secret

    def __getstate__(self) -> dict[str, Any]:
        # A serialized function may refer to a secret: its values must not travel, and be stored, with the code.
        return {**self.__dict__, "_env": {}}

    async def _hydrate(self, client: Optional[Client]) -> None:
        if self._named is None:
            return await super()._hydrate(client)
        environment = current_environment(self._named.environment)
        lookup = replace(self._named, environment=environment)
        self._object_id = await _find(lookup, await (client or default_client())._rpc())

    async def _load(self, resolver: Resolver) -> str:
        if self._named is not None:
            environment = self._named.environment or ("" if resolver.app_id else current_environment())
            lookup = replace(self._named, environment=environment, app_id=resolver.app_id)
            return await _find(lookup, resolver.client)
        request = SecretCreate(resolver.app_id, self._env)
        reply, _ = await resolver.client.unary(SECRET_CREATE, request)
        return str(reply.secret_id)


async def _find(lookup: SecretLookup, rpc: RpcClient) -> str:
    reply, _ = await rpc.unary(SECRET_LOOKUP, lookup)
    return reply.secret_id
