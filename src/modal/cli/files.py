"""What the groups `volume` and `nfs` share: listing files and getting them."""

from __future__ import annotations

import os
import posixpath
import sys
from pathlib import Path
from typing import Any

import click

from .. import _sync
from .._objects.file_entries import FileEntry, FileEntryType, Listing, Reading
from .errors import CliError
from .tables import print_table, utc_time

_KINDS = {
    FileEntryType.FILE: "file",
    FileEntryType.DIRECTORY: "dir",
    FileEntryType.SYMLINK: "link",
    FileEntryType.FIFO: "fifo",
    FileEntryType.SOCKET: "socket",
    FileEntryType.DEVICE: "device",
}


def show_files(obj: Any, path: str, as_json: bool) -> None:
    """List the entries of a directory, or what a pattern with `*` matches."""
    found = _sync.run(Listing(obj, path, is_glob="*" in path).entries())
    rows = [
        [one.path, _KINDS[one.type], utc_time(one.mtime), str(one.size) if as_json else _size(one)] for one in found
    ]
    print_table(["Filename", "Type", "Modified", "Size"], rows, as_json)


def get_files(obj: Any, remote: str, local: str, force: bool) -> None:
    """Download a file or a directory; `-` writes a file to stdout.

    Raises:
        CliError: a local file is in the way.
        NotFoundError: there is no such path.
    """
    entries = _sync.run(Listing(obj, remote, recursive=True, is_glob="*" in remote).entries())
    base = posixpath.normpath(f"/{remote}").strip("/")
    if local == "-":
        _to_stdout(obj, base, entries)
        return
    target = Path(local)
    is_file = len(entries) == 1 and entries[0].path == base and entries[0].type is not FileEntryType.DIRECTORY
    if target.is_dir() or local.endswith("/"):
        target = target / (posixpath.basename(base) or "")
    count = 0
    for entry in entries:
        place = target if is_file else target / entry.path[len(base) :].lstrip("/")
        if entry.type is FileEntryType.DIRECTORY:
            _make_folder(place)
        elif entry.type is FileEntryType.FILE:
            _make_folder(place.parent)
            _download(obj, entry, place, force)
            count += 1
        else:
            click.echo(f"Left out {entry.path!r}, which is a {_KINDS[entry.type]}.", err=True)
    if not entries:
        _make_folder(target)
    click.echo(f"Wrote {count} {'file' if count == 1 else 'files'} to {target}.", err=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"The local directory {str(folder)!r} cannot be made: {error.strerror}.") from None


def _download(obj: Any, entry: FileEntry, place: Path, force: bool) -> None:
    if not force and place.exists():
        raise CliError(f"{str(place)!r} is there already; overwrite it with --force.")
    draft = place.with_name(f".{place.name}.part-{os.getpid()}")
    try:
        with draft.open("xb") as file:
            _sync.run(_copy(obj, entry.path, file))
        draft.replace(place)
    except OSError as error:
        raise CliError(f"{str(place)!r} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _to_stdout(obj: Any, base: str, entries: list[FileEntry]) -> None:
    if len(entries) != 1 or entries[0].path != base or entries[0].type is FileEntryType.DIRECTORY:
        raise CliError(f"{'/' + base!r} is a directory; only a file can be written to stdout.")
    _sync.run(_copy(obj, base, sys.stdout.buffer))
    sys.stdout.buffer.flush()


async def _copy(obj: Any, path: str, file: Any) -> None:
    reading = Reading(obj, path)
    try:
        while data := await reading.next():
            file.write(data)
    finally:
        await reading.close()


def _size(entry: FileEntry) -> str:
    if entry.type is not FileEntryType.FILE:
        return ""
    size = float(entry.size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
