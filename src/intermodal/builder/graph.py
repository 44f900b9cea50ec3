"""From an image spec to its chain of layers. Pure.

A layer's id covers its own content and that of every layer below it, and nothing else, so it is the cache key: the
same chain has the same id on every machine, and a changed layer changes its own id and those above it. A secret
counts by a fingerprint of its content, which the caller supplies, since the id of a secret may change from run to run.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from intermodal.builder.instructions import check_instructions
from intermodal.model.ids import ALPHABET
from modal._wire.messages.common import FileEntry
from modal._wire.messages.image import ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError

#: Part of every id. Raise it when the same layer would be built differently.
RECIPE = 1

MAX_LAYERS = 200
MOST_BUILD_SECONDS = 7 * 24 * 3600.0
IMAGE_ID = re.compile(r"im-[0-9A-Za-z]{22}\Z")
PYTHON_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,3})?\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FIRST_KINDS = (LayerKind.DEBIAN_SLIM, LayerKind.EXISTING)


@dataclass(frozen=True)
class Link:
    """One layer in its place: what it is built on, and whether the cache may answer for it."""

    image_id: str
    parent_id: str  #: "" for the first layer
    layer: ImageLayer
    forced: bool = False  #: build it even if it is cached


def chain(spec: ImageSpec, fingerprints: Mapping[str, str] | None = None) -> tuple[Link, ...]:
    """Return the links of `spec`, bottom first.

    Args:
        spec: the image.
        fingerprints: secret id to a string that changes when the secret's content does; an id that is not in it
            stands for itself.

    Raises:
        InvalidError: the spec can never build.
    """
    check_spec(spec)
    links: list[Link] = []
    parent, forced = "", spec.force_build
    for layer in spec.layers:
        if layer.kind is LayerKind.EXISTING:
            parent = layer.image_id
            links.append(Link(layer.image_id, "", layer))
            continue
        forced = forced or layer.force_build
        image_id = _layer_id(parent, layer, fingerprints or {})
        links.append(Link(image_id, parent, layer, forced))
        parent = image_id
    return tuple(links)


def check_spec(spec: ImageSpec) -> None:
    """Raise `InvalidError` for a spec that cannot be built anywhere."""
    if not spec.layers:
        raise InvalidError("An image needs at least one layer; begin with modal.Image.debian_slim().")
    if len(spec.layers) > MAX_LAYERS:
        raise InvalidError(f"The image has {len(spec.layers)} layers, the limit is {MAX_LAYERS}; merge some commands.")
    for position, layer in enumerate(spec.layers):
        if (position == 0) is not (layer.kind in _FIRST_KINDS):
            what = "has no base" if position == 0 else f"has a base ({layer.kind.value}) above other layers"
            raise InvalidError(f"The image {what}; its first layer, and only that, must be a base.")
        _check_layer(layer)


def _check_layer(layer: ImageLayer) -> None:
    if layer.kind is LayerKind.DEBIAN_SLIM:
        if not PYTHON_VERSION.match(layer.python_version):
            raise InvalidError(f"{layer.python_version!r} is not a Python version; write it like '3.11'.")
    elif layer.kind is LayerKind.EXISTING:
        if not IMAGE_ID.match(layer.image_id):
            raise InvalidError(f"{layer.image_id!r} is not an image id; they look like 'im-' and 22 characters.")
    elif layer.kind is LayerKind.COMMANDS:
        check_instructions(layer.commands)
        check_context(layer.context)
    elif layer.kind is LayerKind.BUILD_METHODS:
        _check_build(layer)
    else:
        _check_pip(layer)
    for secret_id in layer.secret_ids:
        if not secret_id or _CONTROL.search(secret_id):
            raise InvalidError(f"{secret_id!r} is not a secret id.")


def _check_build(layer: ImageLayer) -> None:
    build = layer.build
    if build is None or not build.methods:
        raise InvalidError("A layer of build methods does not say what to run.")
    if not all(name.isidentifier() for name in (build.name, *build.methods)):
        raise InvalidError("A layer of build methods has names that are none.")
    if not _DIGEST.match(build.identity):
        raise InvalidError("A layer of build methods has no valid identity.")
    if not all(0 < seconds <= MOST_BUILD_SECONDS for seconds in build.methods.values()):
        raise InvalidError(f"The timeout of a build method must be above 0 and at most {MOST_BUILD_SECONDS:g} seconds.")
    check_context(build.files)
    if build.body and build.body not in {entry.path for entry in build.files}:
        raise InvalidError("The pickled class of a layer of build methods was not sent.")


def _check_pip(layer: ImageLayer) -> None:
    pip = layer.pip
    if pip is None:
        raise InvalidError("A pip_install layer does not say what to install.")
    if not pip.packages and not pip.extra_options.strip():
        raise InvalidError("pip_install needs at least one package.")
    values = [*pip.packages, pip.find_links or "", pip.index_url or "", pip.extra_index_url or "", pip.extra_options]
    for value in values:
        if _CONTROL.search(value):
            raise InvalidError(f"pip_install got {value!r}, which contains a line break or control character.")
    for package in pip.packages:
        if not package.strip():
            raise InvalidError("pip_install got an empty package name.")
        if package.lstrip().startswith("-"):
            raise InvalidError(f"pip_install got {package!r} as a package; pass options in `extra_options`.")


def check_context(entries: Sequence[FileEntry]) -> None:
    """Raise `InvalidError` for context files that could land outside the context directory, or on one another."""
    seen: set[str] = set()
    for entry in entries:
        path = entry.path
        if not path or path.startswith("/") or _CONTROL.search(path) or posixpath.normpath(path) != path:
            raise InvalidError(f"Build context path {path!r} is not a plain relative path.")
        if path == "." or path.split("/")[0] == "..":
            raise InvalidError(f"Build context path {path!r} leaves the context.")
        if not _DIGEST.match(entry.digest):
            raise InvalidError(f"The build context file {path!r} has no valid SHA-256 digest.")
        if not 0 <= entry.mode <= 0o7777:
            raise InvalidError(f"The build context file {path!r} has the impossible mode {entry.mode:o}.")
        if path in seen:
            raise InvalidError(f"Build context path {path!r} is given twice.")
        seen.add(path)
    for path in seen:
        parent = posixpath.dirname(path)
        while parent:
            if parent in seen:
                raise InvalidError(f"Build context path {parent!r} is both a file and a directory.")
            parent = posixpath.dirname(parent)


def _layer_id(parent: str, layer: ImageLayer, fingerprints: Mapping[str, str]) -> str:
    content = asdict(layer)
    del content["force_build"], content["build"]
    if layer.build is not None:
        content["build"] = [layer.build.name, list(layer.build.methods), layer.build.identity]
    content["kind"] = layer.kind.value
    content["secret_ids"] = sorted(fingerprints.get(secret_id, secret_id) for secret_id in layer.secret_ids)
    content["context"] = sorted([e.path, e.digest, e.mode] for e in layer.context)
    canonical = json.dumps([RECIPE, parent, content], sort_keys=True, separators=(",", ":"))
    return "im-" + _base62(int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:16], "big"))


def _base62(number: int) -> str:
    digits = []
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(digits)
