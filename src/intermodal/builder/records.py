"""What is remembered of each finished image: one small JSON file, written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from intermodal.builder.graph import IMAGE_ID
from intermodal.model.container import BuiltImage

_FORMAT = 1


@dataclass(frozen=True)
class ImageRecord:
    """A finished image. Its file is the proof that it is finished."""

    image_id: str
    storage_id: str  #: the hex id in buildah's store
    layers: tuple[str, ...]  #: names of layers in the store, topmost first
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    python: str = ""
    python_version: str = ""
    entrypoint: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    source: str = ""


class ImageRecords:
    """The records of one data directory, cached in memory."""

    def __init__(self, directory: Path, layers: Path) -> None:
        """`directory`: where the files are. `layers`: where the store keeps layers."""
        self._directory = directory
        self._layers = layers
        self._known: dict[str, ImageRecord] = {}

    def open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for unfinished in self._directory.glob(".*.new"):
            unfinished.unlink()

    def get(self, image_id: str) -> ImageRecord | None:
        """The record of a finished image whose layers are all there."""
        record = self._known.get(image_id) or self._load(image_id)
        if record is None or not all(path.is_dir() for path in self.paths(record)):
            self._known.pop(image_id, None)
            return None
        self._known[image_id] = record
        return record

    def put(self, record: ImageRecord) -> None:
        """Write durably, replacing an earlier record."""
        path = self._path(record.image_id)
        temporary = path.with_name(f".{path.name}.new")
        with open(temporary, "w") as file:
            json.dump({"format": _FORMAT, **asdict(record)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._known[record.image_id] = record

    def paths(self, record: ImageRecord) -> tuple[Path, ...]:
        return tuple(self._layers / name / "diff" for name in record.layers)

    def built(self, record: ImageRecord) -> BuiltImage:
        """The record as the rest of the system sees it."""
        return BuiltImage(
            image_id=record.image_id,
            layers=self.paths(record),
            env=dict(record.env),
            workdir=record.workdir,
            python=record.python,
            python_version=record.python_version,
            entrypoint=record.entrypoint,
            source=record.source,
        )

    def _load(self, image_id: str) -> ImageRecord | None:
        if not IMAGE_ID.match(image_id):
            return None
        try:
            content = json.loads(self._path(image_id).read_bytes())
            if content.pop("format") != _FORMAT or content["image_id"] != image_id:
                return None
            for name in ("layers", "entrypoint", "shell"):
                content[name] = tuple(content[name])
            return ImageRecord(**content)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no record, or one that an unknown version wrote: the image is then built again

    def _path(self, image_id: str) -> Path:
        return self._directory / f"{image_id}.json"
