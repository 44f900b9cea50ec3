"""Reads buildah's image store from disk, which takes far less time than asking buildah."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intermodal.model.errors import RuntimeFailure


@dataclass(frozen=True)
class StoredImage:
    """What the store knows of an image."""

    storage_id: str
    layers: tuple[Path, ...]  #: overlay directories, topmost first
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    entrypoint: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()


class ImageStorage:
    """The directory that buildah was given as ``--root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, storage_id: str) -> StoredImage:
        """Return an image by the hex id that buildah reports.

        Raises:
            RuntimeFailure: the image is not in the store, or the store cannot be understood.
        """
        try:
            return self._read(storage_id)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RuntimeFailure(
                f"The image store below {self._root} cannot be read ({error!r}); remove that directory to start afresh."
            ) from error

    def _read(self, storage_id: str) -> StoredImage:
        images = _load(self._root / "overlay-images" / "images.json")
        image = next(entry for entry in _by_id(images, storage_id))
        config = self._config(storage_id).get("config", {})
        return StoredImage(
            storage_id=storage_id,
            layers=self._layers(image["layer"]),
            env=dict(pair.partition("=")[::2] for pair in config.get("Env") or []),
            workdir=config.get("WorkingDir") or "",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            shell=tuple(config.get("Shell") or ()),
        )

    def _layers(self, top: str) -> tuple[Path, ...]:
        layers = {entry["id"]: entry for entry in _load(self._root / "overlay-layers" / "layers.json")}
        found = []
        layer_id = top
        while layer_id:
            directory = self._root / "overlay" / layer_id / "diff"
            if not directory.is_dir():
                raise ValueError(f"layer {layer_id[:12]} is missing")
            found.append(directory)
            layer_id = layers[layer_id].get("parent", "")
        return tuple(found)

    def _config(self, storage_id: str) -> dict[str, Any]:
        directory = self._root / "overlay-images" / storage_id
        key = f"sha256:{storage_id}"
        path = directory / ("=" + base64.b64encode(key.encode()).decode())
        config = _load(path)
        if not isinstance(config, dict):
            raise TypeError("image configuration is no object")
        return config


def _by_id(images: Any, storage_id: str) -> list[dict[str, Any]]:
    found = [entry for entry in images if entry["id"] == storage_id]
    if not found:
        raise KeyError(storage_id)
    return found


def _load(path: Path) -> Any:
    return json.loads(path.read_bytes())
