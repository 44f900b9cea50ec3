"""Who may do what: every handler asks here before it acts.

A local user (the Unix socket admits only the server's own user) and a token may do everything; code in a container may
only use its own app.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from intermodal.control.apps import Apps
from intermodal.control.rpc import Context
from intermodal.store.interface import CallRecord
from modal.exception import AuthError, NotFoundError


def require_app(ctx: Context, app_id: str) -> None:
    """Raise `AuthError` unless the caller may use this app."""
    if ctx.principal.kind == "container" and ctx.principal.app_id != app_id:
        raise AuthError("Code in a container can only use the app that it belongs to.")


def require_user(ctx: Context) -> None:
    """Raise `AuthError` unless the caller is a person's client rather than a container."""
    if ctx.principal.kind == "container":
        raise AuthError("This cannot be done from inside a container; do it from your own machine.")


async def require_environment(apps: Apps, call: CallRecord, name: str) -> None:
    """Raise `NotFoundError` unless the call is one of the environment of this name; "" is any."""
    if name and (await apps.environment_of(call.app_id)) not in (apps.environments.require(name).environment_id, ""):
        raise NotFoundError(
            f"There is no function call {call.call_id!r} in the environment {name!r}; it belongs to "
            "another one. Choose that with MODAL_ENVIRONMENT."
        )


class AdminToken:
    """The token that opens the TCP port, kept in a file that only the server's user can read.

    The first line is the id, the second the secret: what a client sets as `token_id` and `token_secret`.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"ak-{secrets.token_urlsafe(12)}\nas-{secrets.token_urlsafe(32)}\n")
            draft.rename(path)
        lines = path.read_text().split("\n")
        self._id, self._secret = lines[0], lines[1]

    def matches(self, token_id: str, token_secret: str) -> bool:
        """Compare in constant time."""
        same_id = hmac.compare_digest(token_id.encode(), self._id.encode())
        return hmac.compare_digest(token_secret.encode(), self._secret.encode()) and same_id
