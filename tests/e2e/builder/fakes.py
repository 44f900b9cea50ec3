"""What a builder is given, and the images that tests build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from modal._wire.messages.common import FileEntry
from modal._wire.messages.image import ImageLayer, ImageSpec, LayerKind, PipInstall
from modal.exception import NotFoundError

BASE = ImageLayer(LayerKind.DEBIAN_SLIM, python_version="3.11")


class Log:
    """Keeps a build log."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.text = ""

    def step(self, title: str) -> None:
        self.steps.append(title)

    def write(self, text: str) -> None:
        self.text += text


class Secrets:
    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}

    def env(self, secret_id: str) -> dict[str, str]:
        if secret_id not in self.known:
            raise NotFoundError(f"There is no secret {secret_id}.")
        return self.known[secret_id]

    def note_use(self, secret_ids: Iterable[str]) -> None:
        """Nobody asks."""


class Blobs:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir()

    def add(self, path: str, content: bytes, mode: int = 0o644) -> FileEntry:
        digest = hashlib.sha256(content).hexdigest()
        (self._root / digest).write_bytes(content)
        return FileEntry(path, digest, len(content), mode)

    def path(self, digest: str) -> Path:
        path = self._root / digest
        if not path.exists():
            raise NotFoundError(f"There is no blob {digest}.")
        return path


def commands(*lines: str, **fields: object) -> ImageLayer:
    return ImageLayer(LayerKind.COMMANDS, commands=list(lines), **fields)  # type: ignore[arg-type]


def pip(*packages: str, **options: object) -> ImageLayer:
    return ImageLayer(LayerKind.PIP_INSTALL, pip=PipInstall(list(packages), **options))  # type: ignore[arg-type]


def spec(*layers: ImageLayer) -> ImageSpec:
    return ImageSpec([BASE, *layers])
