"""Who may do what: every handler asks here before it acts.

A local user (the Unix socket admits only the server's own user) may do everything, a token what its role says; code in
a container may only use its own app. That a read-only token changes nothing is held before any handler is asked, in
`rpc_peer.py`.
"""

from __future__ import annotations

from intermodal.control.apps import Apps
from intermodal.control.rpc import Context
from intermodal.store.interface import CallRecord
from modal._wire.messages.token import Role
from modal.exception import AuthError, NotFoundError


def require_app(ctx: Context, app_id: str) -> None:
    """Raise `AuthError` unless the caller may use this app."""
    if ctx.principal.kind == "container" and ctx.principal.app_id != app_id:
        raise AuthError("Code in a container can only use the app that it belongs to.")


def require_use(ctx: Context, apps: Apps, app_id: str) -> None:
    """Raise `AuthError` unless the caller may call this app's functions.

    Code in a container may call those of its own app, and of the deployed apps in its environment.
    """
    if ctx.principal.kind != "container" or ctx.principal.app_id == app_id:
        return
    other = apps.find(app_id)
    if other is None or not other.is_deployed or other.record.environment_id != ctx.principal.environment_id:
        raise AuthError(
            "Code in a container can only use the app that it belongs to, and deployed apps of the same environment."
        )


def require_user(ctx: Context) -> None:
    """Raise `AuthError` unless the caller is a person's client rather than a container."""
    if ctx.principal.kind == "container":
        raise AuthError("This cannot be done from inside a container; do it from your own machine.")


def require_container(ctx: Context) -> None:
    """Raise `AuthError` unless the caller is code in a container, as itself."""
    if ctx.principal.kind != "container":
        raise AuthError("Only code in a container can ask for the terminal of whoever runs it.")


def require_admin(ctx: Context) -> None:
    """Raise `AuthError` unless the caller may give and take access."""
    require_user(ctx)
    if ctx.principal.role is not Role.ADMIN:
        raise AuthError(
            f"This takes the role admin, and the token {ctx.principal.who!r} has the role {ctx.principal.role.value}. "
            "A user of the server's machine can do it there."
        )


def require_own_environment(ctx: Context, environment_id: str) -> None:
    """Raise `AuthError` for code in a container whose app belongs to another environment."""
    if ctx.principal.kind == "container" and ctx.principal.environment_id != environment_id:
        raise AuthError("Code in a container can only use the objects of its own environment.")


async def require_environment(apps: Apps, call: CallRecord, name: str) -> None:
    """Raise `NotFoundError` unless the call is one of the environment of this name; "" is any."""
    if name and (await apps.environment_of(call.app_id)) not in (apps.environments.require(name).environment_id, ""):
        raise NotFoundError(
            f"There is no function call {call.call_id!r} in the environment {name!r}; it belongs to "
            "another one. Choose that with MODAL_ENVIRONMENT."
        )
