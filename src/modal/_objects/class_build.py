"""The `@modal.build()` methods of a class: one more layer on its image, made by running them."""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._local_files import LocalFile
from .._serialization import serialize_function
from .._wire.messages.image import BuildMethods, ImageLayer, ImageSpec, LayerKind
from ..config import config
from .image_build import build
from .partial_function import Mark, PartialFunction
from .user_class import build_hooks

if TYPE_CHECKING:
    from .._upload import Client
    from .._wire.messages.function import Source

_BODY = "class.pickle"
_ROOT = "/root/"  #: where modules lie in containers


async def build_methods(
    client: Client, cls: type, image_id: str, source: Source, files: Sequence[LocalFile], secret_ids: Sequence[str]
) -> str:
    """The id of the image with the layer that the class's build methods make; `image_id` when it has none.

    Args:
        client: the connection.
        cls: the user's class.
        image_id: the image without it.
        source: how the class is found.
        files: what containers of the class will have, by place.
        secret_ids: the environment of the step.

    Raises:
        RemoteError: a method failed; the message holds the end of its output.
        SerializationError: a class that is to be sent pickled cannot be.
    """
    hooks = build_hooks(cls)
    if not hooks:
        return image_id
    from .._upload import upload_files

    modules = [
        LocalFile(file.path, file.remote_path[len(_ROOT) :], file.mode)
        for file in files
        if file.remote_path.startswith(_ROOT)
    ]
    with tempfile.TemporaryDirectory(prefix="modal-build-") as folder:
        if not source.path and not source.module:
            pickled = Path(folder, _BODY)
            pickled.write_bytes(serialize_function(cls))
            modules = [LocalFile(pickled, _BODY)]
        entries = await upload_files(client, modules)
    request = BuildMethods(
        name=cls.__name__,
        source=source,
        body=_BODY if not source.path and not source.module else "",
        methods={name: float(hook.marks[Mark.BUILD]["timeout"]) for name, hook in hooks.items()},
        identity=_identity(cls, hooks),
        files=entries,
    )
    forced = any(hook.marks[Mark.BUILD]["force"] for hook in hooks.values())
    base = ImageLayer(LayerKind.EXISTING, image_id=image_id)
    step = ImageLayer(LayerKind.BUILD_METHODS, build=request, secret_ids=list(secret_ids), force_build=forced)
    info = await build(client, ImageSpec([base, step], bool(config.get("force_build"))))
    return info.image_id


def _identity(cls: type, hooks: dict[str, PartialFunction[Any, Any, Any]]) -> str:
    """A hash of the methods' source: other changes to the program do not run them again."""
    digest = hashlib.sha256(cls.__qualname__.encode())
    for name, hook in hooks.items():
        digest.update(f"\0{name}\0{_text_of(hook.raw_f)}".encode())
    return digest.hexdigest()


def _text_of(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # made by exec, or wrapped by something that is no function
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code is not None else repr(type(function))
