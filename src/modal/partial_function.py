"""Decorators that mark functions and methods."""

from __future__ import annotations

from ._objects.partial_function import (
    PartialFunction,
    asgi_app,
    batched,
    build,
    enter,
    exit,
    interact,
    method,
    parameter,
    web_endpoint,
    web_server,
    wsgi_app,
)

__all__ = [
    "PartialFunction",
    "asgi_app",
    "batched",
    "build",
    "enter",
    "exit",
    "interact",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]
