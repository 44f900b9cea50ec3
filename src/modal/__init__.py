"""Run Python functions in containers on machines you own.

Names are imported when they are first used, so that `import modal` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._objects.tunnel import Tunnel, forward
    from ._output import enable_output
    from ._runtime_context import current_function_call_id, current_input_id, is_local
    from .app import App
    from .client import Client
    from .cloud_bucket_mount import CloudBucketMount
    from .cls import Cls
    from .container_process import ContainerProcess
    from .dict import Dict
    from .exception import Error
    from .file_io import FileIO
    from .file_pattern_matcher import FilePatternMatcher
    from .functions import Function, FunctionCall
    from .image import Image
    from .mount import Mount
    from .network_file_system import NetworkFileSystem
    from .partial_function import (
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
    from .proxy import Proxy
    from .queue import Queue
    from .retries import Retries
    from .sandbox import Sandbox
    from .schedule import Cron, Period
    from .secret import Secret
    from .volume import Volume

__version__ = "0.1.0"

#: The module that each name comes from.
_HOMES = {
    "App": "app",
    "Client": "client",
    "CloudBucketMount": "cloud_bucket_mount",
    "Cls": "cls",
    "ContainerProcess": "container_process",
    "Cron": "schedule",
    "Dict": "dict",
    "Error": "exception",
    "FileIO": "file_io",
    "FilePatternMatcher": "file_pattern_matcher",
    "Function": "functions",
    "FunctionCall": "functions",
    "Image": "image",
    "Mount": "mount",
    "NetworkFileSystem": "network_file_system",
    "Period": "schedule",
    "Proxy": "proxy",
    "Queue": "queue",
    "Retries": "retries",
    "Sandbox": "sandbox",
    "Secret": "secret",
    "Tunnel": "_objects.tunnel",
    "Volume": "volume",
    "asgi_app": "partial_function",
    "batched": "partial_function",
    "build": "partial_function",
    "current_function_call_id": "_runtime_context",
    "current_input_id": "_runtime_context",
    "enable_output": "_output",
    "enter": "partial_function",
    "exit": "partial_function",
    "forward": "_objects.tunnel",
    "interact": "partial_function",
    "is_local": "_runtime_context",
    "method": "partial_function",
    "parameter": "partial_function",
    "web_endpoint": "partial_function",
    "web_server": "partial_function",
    "wsgi_app": "partial_function",
}

#: Modules that can be reached as attributes without importing them, as in `modal.gpu.A100()`.
_MODULES = {
    *("app", "call_graph", "client", "cls", "config", "container_process", "dict", "exception", "file_io", "functions"),
    *("gpu", "image", "io_streams", "mount", "object", "partial_function", "proxy", "queue", "retries", "runner"),
    *("sandbox", "schedule", "secret", "stream_type", "volume"),
}

__all__ = [
    "App",
    "Client",
    "CloudBucketMount",
    "Cls",
    "ContainerProcess",
    "Cron",
    "Dict",
    "Error",
    "FileIO",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "Mount",
    "NetworkFileSystem",
    "Period",
    "Proxy",
    "Queue",
    "Retries",
    "Sandbox",
    "Secret",
    "Tunnel",
    "Volume",
    "__version__",
    "asgi_app",
    "batched",
    "build",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exit",
    "forward",
    "interact",
    "is_local",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'modal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
