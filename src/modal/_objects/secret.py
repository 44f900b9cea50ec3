"""`modal.Secret`: environment variables that containers and build steps get."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional, Union

from .._later import not_built_yet
from .._wire.messages.mount import SECRET_CREATE, SecretCreate
from ..exception import InvalidError
from .object import Object
from .secret_env import check_env, find_dotenv, read_dotenv

if TYPE_CHECKING:
    from .resolver import Resolver


class Secret(Object):
    """Environment variables with values that must not be seen: they are kept apart from the code and never logged.

    Make one with `from_dict`, `from_local_environ` or `from_dotenv`, and pass it as `secrets=[...]`.
    """

    _env: dict[str, str]

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
    def from_name(
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        required_keys: list[str] = [],
    ) -> Secret:
        """A secret that was created before, by its name."""
        not_built_yet("modal.Secret.from_name", "Use modal.Secret.from_dict or from_local_environ.")

    async def _load(self, resolver: Resolver) -> str:
        request = SecretCreate(resolver.app_id, self._env)
        reply, _ = await resolver.client.unary(SECRET_CREATE, request)
        return str(reply.secret_id)
