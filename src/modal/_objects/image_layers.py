"""The chain of layers that an image is, as described on this machine, and its translation to the wire.

A `Layer` holds descriptions (`FileSource`, `Secret`); `to_spec` looks at the files, uploads them and gives the
`ImageSpec` that the server builds.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Union

from .._local_files import LocalFile, relative_path
from .._wire.messages.common import FileEntry
from .._wire.messages.image import ImageLayer, ImageSpec, LayerKind, PipInstall
from ..exception import InvalidError
from .file_sources import FileSource

if TYPE_CHECKING:
    from .._upload import Client
    from .secret import Secret

#: A spec with more context files than this does not fit into one request.
MAX_CONTEXT_FILES = 5_000


@dataclass(frozen=True)
class Layer:
    """One link of the chain, as `ImageLayer`, before files are looked at."""

    kind: LayerKind
    python_version: str = ""
    image_id: str = ""
    commands: tuple[str, ...] = ()
    pip: Union[PipInstall, Callable[[], PipInstall], None] = None  #: callable: reads local files when it is called
    context: Optional[FileSource] = None  #: its places are relative to the context's root
    secrets: tuple[Secret, ...] = ()
    gpu: str = ""
    force_build: bool = False


async def to_spec(
    client: Client,
    layers: Sequence[Layer],
    secret_id: Callable[[Secret], Awaitable[str]],
    *,
    force_build: bool = False,
) -> ImageSpec:
    """Upload the context files of `layers` and return the spec to build.

    Args:
        client: connection to the server.
        layers: the chain, base first.
        secret_id: gives the id of a secret, creating it when needed.
        force_build: ignore the cache for every layer.

    Raises:
        InvalidError: a local file is missing, unreadable or changing, or there are too many.
    """
    from asyncio import to_thread  # not what `import modal` should cost

    from .._upload import upload_files

    contexts = [[] if layer.context is None else await to_thread(_context_files, layer.context) for layer in layers]
    count = sum(map(len, contexts))
    if count > MAX_CONTEXT_FILES:
        raise InvalidError(
            f"The image copies {count:,} local files; the limit is {MAX_CONTEXT_FILES:,}. Leave some out with "
            "ignore=, pack them into an archive, or add them without copy=True."
        )
    entries = [await upload_files(client, files) if files else [] for files in contexts]
    sent = [await _wire_layer(layer, files, secret_id) for layer, files in zip(layers, entries)]
    return ImageSpec(sent, force_build)


async def _wire_layer(
    layer: Layer, context: list[FileEntry], secret_id: Callable[[Secret], Awaitable[str]]
) -> ImageLayer:
    return ImageLayer(
        kind=layer.kind,
        python_version=layer.python_version,
        image_id=layer.image_id,
        commands=list(layer.commands),
        pip=layer.pip() if callable(layer.pip) else layer.pip,
        context=context,
        secret_ids=[await secret_id(secret) for secret in layer.secrets],
        gpu=layer.gpu,
        force_build=layer.force_build,
    )


def _context_files(source: FileSource) -> list[LocalFile]:
    files = source.collect()
    if not files:
        raise InvalidError("There is no file to copy into the image, or ignore= leaves all out.")
    for file in files:
        relative_path(file.remote_path, what="A build context path")
    return files


def words(values: Sequence[Union[str, Sequence[str]]], what: str) -> list[str]:
    """Flatten strings and lists of strings, as the variadic methods take them.

    Raises:
        InvalidError: for anything else, or an empty string.
    """
    flat: list[str] = []
    for value in values:
        for item in [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [None]:
            if not isinstance(item, str) or not item.strip():
                raise InvalidError(f"{what} takes non-empty strings or lists of them, not {value!r}.")
            flat.append(item)
    return flat


def run(command: str, shell: Sequence[str]) -> str:
    """The RUN instruction for a shell command. One of several lines runs as one script of that shell."""
    lines = command.strip().split("\n")
    if all(line.rstrip().endswith("\\") for line in lines[:-1]) and not command.lstrip().startswith(("[", "--", "<<")):
        return f"RUN {command.strip()}"
    return f"RUN {json.dumps([*shell, command.strip()])}"


def copy_all(destination: str) -> str:
    """The COPY instruction that puts the whole context below `destination`."""
    return f"COPY {json.dumps(['.', destination])}"


def quote(value: str, what: str) -> str:
    """Quote a word for a Dockerfile so that it is taken literally. Raises InvalidError for a line break in it."""
    if any(char in value for char in "\n\r\0"):
        raise InvalidError(f"{what} must not contain a line break or zero byte; put such a value into a modal.Secret.")
    return shlex.quote(value)


def copy_sources(commands: Sequence[str]) -> tuple[str, ...]:
    """What COPY and ADD instructions take from the build context; URLs and other stages are left out."""
    sources: list[str] = []
    for command in commands:
        for line in command.replace("\\\n", " ").split("\n"):
            word, _, rest = line.strip().partition(" ")
            if word.upper() not in ("COPY", "ADD"):
                continue
            flags, items = _copy_items(rest.strip(), line)
            if any(flag.startswith("--from=") for flag in flags):
                continue
            sources += [item for item in items[:-1] if "://" not in item]
    return tuple(sources)


def _copy_items(text: str, line: str) -> tuple[list[str], list[str]]:
    flags: list[str] = []
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        flags.append(flag)
        text = text.lstrip()
    try:
        items = json.loads(text) if text.startswith("[") else shlex.split(text)
    except ValueError:
        raise InvalidError(f"The instruction {line.strip()!r} cannot be understood.") from None
    if not all(isinstance(item, str) for item in items) or len(items) < 2:
        raise InvalidError(f"The instruction {line.strip()!r} needs a source and a destination.")
    return flags, items
