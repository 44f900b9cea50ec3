"""Where this code runs: in the user's process or in a container, and there for which input.

The runtime inside a container fills this in (`enter_container`, `enter_input`); everybody else only reads it. It
imports almost nothing, since every container pays for it.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


SOCKET_VARIABLE = "INTERMODAL_SOCKET"


class ContainerContext:
    """What code in a container can know of it. Read-only by convention."""

    __slots__ = (
        "app_description",
        "app_id",
        "app_name",
        "container_id",
        "environment",
        "function_id",
        "function_name",
        "is_interactive",
        "mounts",
        "objects",
        "socket_path",
    )

    def __init__(
        self,
        *,
        container_id: str,
        app_id: str = "",
        app_name: str = "",
        app_description: str = "",
        function_id: str = "",
        function_name: str = "",
        environment: str = "",
        objects: Optional[dict[str, str]] = None,
        socket_path: str = "",
        is_interactive: bool = False,
        mounts: Optional[list[dict[str, Any]]] = None,
    ) -> None:
        self.container_id = container_id
        self.app_id = app_id
        self.app_name = app_name  #: "" when the app has no name
        self.app_description = app_description
        self.function_id = function_id  #: of the function that this container runs
        self.function_name = function_name
        self.environment = environment
        self.objects = objects or {}  #: function tag -> id, the app's published objects
        self.is_interactive = is_interactive  #: the app's user can be asked, with `modal.interact()`
        self.mounts = mounts or []  #: each a `modal._wire.messages.function.VolumeMount` as JSON
        self.socket_path = socket_path  #: the Unix socket for SDK calls made by code in the container


_container: Optional[ContainerContext] = None
#: (input id, call id); a pair so that an input costs one assignment
_input: ContextVar[Optional[tuple[str, str]]] = ContextVar("modal_current_input", default=None)

enter_input = _input.set
_announce: Optional[Callable[[str], None]] = None


def announce_input(announce: Optional[Callable[[str], None]]) -> None:
    """Have `announce(input_id)` called before user code, or a call that it makes, gets to know its input."""
    global _announce
    _announce = announce


def enter_container(context: Optional[ContainerContext]) -> None:
    """Say that this process is a container (None: that it is not, for tests)."""
    global _container
    _container = context


def container_context() -> Optional[ContainerContext]:
    """Return the container this process runs in, or None in the user's own process."""
    return _container


def container_socket() -> Optional[str]:
    """The Unix socket for SDK calls of the container that this process is, or is a child of; None outside of one.

    A child that was not forked has it from the environment.
    """
    return _container.socket_path if _container is not None else os.environ.get(SOCKET_VARIABLE) or None


def is_local() -> bool:
    """Return whether this code runs on the machine that launches or deploys the app.

    False in a container. A program that code in a container starts is no part of the app, and gets True.
    """
    return _container is None


def current_input_id() -> Optional[str]:
    """Return the id (``in-…``) of the input that this thread or task runs; None outside of one."""
    return _known_input()[0]


def current_function_call_id() -> Optional[str]:
    """Return the id (``fc-…``) of the function call that this thread or task works for; None outside of one."""
    return _known_input()[1]


def _known_input() -> tuple[Optional[str], Optional[str]]:
    current = _input.get()
    if current is None:
        return None, None
    if _announce is not None:
        _announce(current[0])
    return current
