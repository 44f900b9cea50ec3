"""Proves that what volumes hold is what was committed."""

from __future__ import annotations

from collections.abc import Generator

from intermodal.volumes.entries import entries_of
from intermodal.volumes.store import VolumeStore


def verify(store: VolumeStore, volume_id: str) -> Generator[str, None, None]:
    """Read every file of the current version; gives a sentence for each thing that is not as it was committed.

    Raises `NotFoundError`.
    """
    with store.held(volume_id) as version:
        for layer, folder in zip(version.layers, store.layers(volume_id, version), strict=False):
            try:
                expected = {entry.path: entry for entry in store.manifest(volume_id, layer)}
            except (OSError, ValueError, TypeError) as error:
                yield f"layer {layer}: its list of files cannot be read: {error}"
                continue
            if not folder.is_dir():
                yield f"layer {layer}: it is missing"
                continue
            found = {entry.path: entry for entry in entries_of(folder, store.pool)}
            for path in sorted(expected.keys() | found.keys()):
                was, now = expected.get(path), found.get(path)
                if was is None:
                    yield f"layer {layer}: {path!r} was not committed"
                elif now is None:
                    yield f"layer {layer}: {path!r} is missing"
                elif was.digest != now.digest:
                    yield f"layer {layer}: the content of {path!r} has changed"
                elif was != now:
                    yield f"layer {layer}: {path!r} has another owner, mode or kind"
