"""Images: a chain of layers described by the client, built by the server."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .common import FileEntry, Method, Shape
from .function import Source


class LayerKind(enum.Enum):
    DEBIAN_SLIM = "debian_slim"  #: first layer: `python_version` is set
    EXISTING = "existing"  #: first layer: `image_id` is set
    COMMANDS = "commands"  #: `commands` are Dockerfile instructions on top of the layer before
    PIP_INSTALL = "pip_install"  #: `pip` is set
    BUILD_METHODS = "build_methods"  #: `build` is set


@dataclass(frozen=True)
class PipInstall:
    packages: list[str] = field(default_factory=list)  #: requirement specifiers, each one argument
    find_links: Optional[str] = None
    index_url: Optional[str] = None
    extra_index_url: Optional[str] = None
    pre: bool = False
    extra_options: str = ""  #: as on pip's command line; pip itself is used when set, uv otherwise


@dataclass(frozen=True)
class BuildMethods:
    """Methods of a class to run in the image, for the files that they leave in it."""

    name: str  #: of the class
    source: Source
    methods: dict[str, float]  #: in order, with the seconds that each may take
    identity: str  #: stands for the code of the methods: with the same one they are not run again
    body: str = ""  #: the one of `files` that holds the pickled class
    files: list[FileEntry] = field(default_factory=list)  #: its modules; they are not part of the layer


@dataclass(frozen=True)
class ImageLayer:
    """One link of the chain. Its identity is every field but `force_build` and what `build` is made of."""

    kind: LayerKind
    python_version: str = ""
    image_id: str = ""
    commands: list[str] = field(default_factory=list)
    pip: Optional[PipInstall] = None
    build: Optional[BuildMethods] = None
    context: list[FileEntry] = field(default_factory=list)  #: files that COPY may name, relative paths
    secret_ids: list[str] = field(default_factory=list)  #: environment of RUN steps, never part of the image
    gpu: str = ""
    force_build: bool = False


@dataclass(frozen=True)
class ImageSpec:
    layers: list[ImageLayer] = field(default_factory=list)
    force_build: bool = False  #: ignore the cache for every layer (MODAL_FORCE_BUILD)


@dataclass(frozen=True)
class ImageRef:
    image_id: str


@dataclass(frozen=True)
class ImageInfo:
    image_id: str
    python_version: str = ""  #: "3.11.7" of the `python` on PATH, "" when there is none
    source: str = ""  #: where the base came from, for people
    cached: bool = True


@dataclass(frozen=True)
class BuildEvent:
    """Progress of a build. `step` starts a layer, `log` is its output, `done` is the last event."""

    step: str = ""  #: e.g. "pip install scikit-learn (2/3)"
    log: str = ""
    done: Optional[ImageInfo] = None


IMAGE_BUILD = Method("image.build", ImageSpec, BuildEvent, Shape.SERVER_STREAM, mutating=True)
IMAGE_GET = Method("image.get", ImageRef, ImageInfo)
