"""The list of a layer's entries, with the digests of its files, that is written when it is committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path

from intermodal.volumes.durable import sync_tree, write
from intermodal.volumes.entries import Entry, entries_of


def read_manifest(path: Path) -> list[Entry]:
    """The entries of a layer as they were when it was committed. Raises OSError, ValueError, TypeError."""
    data = path.read_bytes().decode("utf-8", "surrogateescape")
    return [Entry.from_json(values) for values in json.loads(data)]


def write_manifest(
    path: Path, layer: Path, pool: Executor | None = None, known: Mapping[int, str] | None = None
) -> list[Entry]:
    """List what a layer has, and make that and the layer durable; see `entries_of`. Raises OSError."""
    entries = entries_of(layer, pool, known)
    sync_tree(layer, [entry.path for entry in entries if entry.kind == "file"])
    text = json.dumps([entry.to_json() for entry in entries], ensure_ascii=False)
    write(path, text.encode("utf-8", "surrogateescape"))
    return entries
