"""Which layers are in use, and which volumes are to go with the last use."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Holds:
    """The uses of layers by mounts and readers, by volume. May be called from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._used: dict[str, dict[str, int]] = {}  # volume -> layer -> uses
        self._deleted: set[str] = set()

    def take(self, volume_id: str, layers: Iterable[str]) -> None:
        """Begin a use of each of these layers."""
        with self._guard:
            counts = self._used.setdefault(volume_id, {})
            for layer in layers:
                counts[layer] = counts.get(layer, 0) + 1

    def drop(self, volume_id: str, layers: Iterable[str]) -> bool:
        """End a use of each; True if that was the last use of a deleted volume."""
        with self._guard:
            counts = self._used.get(volume_id, {})
            for layer in layers:
                counts[layer] -= 1
                if not counts[layer]:
                    del counts[layer]
            if counts:
                return False
            self._used.pop(volume_id, None)
            return volume_id in self._deleted

    def needed(self, volume_id: str) -> set[str]:
        """The layers of a volume that are in use."""
        with self._guard:
            return set(self._used.get(volume_id, ()))

    def delete(self, volume_id: str) -> bool:
        """From now on the volume counts as deleted; returns whether it is in use."""
        with self._guard:
            self._deleted.add(volume_id)
            return volume_id in self._used

    def is_deleted(self, volume_id: str) -> bool:
        with self._guard:
            return volume_id in self._deleted

    def forget(self, volume_id: str) -> None:
        """The files of a deleted volume are gone."""
        with self._guard:
            self._deleted.discard(volume_id)
