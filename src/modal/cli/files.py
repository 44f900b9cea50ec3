"""What the groups `volume` and `nfs` share: finding files, listing and getting them."""

from __future__ import annotations

import posixpath
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .._objects.file_entries import FilesReading, Listing
from .._wire.messages.files import FileInfo, FileKind
from ..exception import NotFoundError
from .download_plan import Plan
from .downloads import can_link, is_stdout, make, write_file
from .errors import CliError
from .request import pull
from .tables import print_table, utc_time


def show_files(obj: Any, path: str, as_json: bool) -> None:
    """List the entries of a directory, or what a pattern with `*` matches."""
    rows = [
        [
            one.path,
            "dir" if one.kind is FileKind.DIRECTORY else one.kind.value,
            utc_time(one.mtime),
            str(one.size) if as_json else _size(one),
        ]
        for one in _find(obj, path).entries
    ]
    print_table(["Filename", "Type", "Modified", "Size"], rows, as_json)


def get_files(obj: Any, remote: str, local: str, force: bool) -> None:
    """Download a file, a directory, or what a pattern with `*` matches; `-` writes a file to stdout.

    Raises:
        CliError: a local file is in the way, the pattern matches nothing, or none of it can be downloaded.
        NotFoundError: there is no such path.
    """
    found = _find(obj, remote, recursive=True)
    if found.is_file and found.entries[0].kind is not FileKind.FILE:
        raise CliError(f"{remote!r} is {_description(found.entries[0])}, and no file.")
    if local == "-" or (found.is_file and is_stdout(local)):
        _to_stdout(obj, remote, found)
        return
    target = Path(local)
    goes_into = not found.is_pattern and (target.is_dir() or local.endswith("/"))
    name = posixpath.basename(found.base) if goes_into else ""
    if found.is_file and not goes_into:
        write_file(obj, found.base, target, force)
        click.echo(f"Wrote 1 file to {target}.", err=True)
        return
    plan = _plan(obj, found, target, name)
    for one in plan.left_out:
        click.echo(f"Left out {one}.", err=True)
    if plan.left_out and not (plan.files or plan.links):
        raise CliError(f"{remote!r} has no file that can be downloaded; nothing was written.")
    make(obj, plan, target, force)
    links = f" and {_count(plan.links, 'link')}" if plan.links else ""
    click.echo(f"Wrote {_count(plan.files, 'file')}{links} to {target / name}.", err=True)


def _plan(obj: Any, found: _Found, target: Path, name: str) -> Plan:
    """What is to be made below `target`; `name` is the place there of what was found, if it is a file or directory."""
    if found.is_file:
        return Plan(files=[(found.base, name)])
    has_links = any(one.kind is FileKind.LINK for one in found.entries)
    plan = Plan(
        expand=lambda path: list(pull(Listing(obj, path, recursive=True))),
        keeps_links=has_links and can_link(target),
    )
    plan.add(found.entries, found.base, name)
    return plan


def _to_stdout(obj: Any, remote: str, found: _Found) -> None:
    if not found.is_file:
        raise CliError(f"{remote!r} is not one file; only one file can be written to stdout.")
    for _, data in pull(FilesReading(obj, [found.base])):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@dataclass(frozen=True)
class _Found:
    """What a path stands for: a directory's entries, or one file, or what a pattern matches."""

    entries: list[FileInfo]
    base: str  #: the path of the directory or file; of a pattern: its leading directories without wildcards
    is_pattern: bool = False

    @property
    def is_file(self) -> bool:
        return len(self.entries) == 1 and self.entries[0].path == self.base


def _find(obj: Any, path: str, recursive: bool = False) -> _Found:
    """Look up a path; only if there is none it is a pattern, since names may have `*` in them.

    Args:
        recursive: with all that is in the directory, or in directories that the pattern matches.

    Raises:
        NotFoundError: there is no such path, and it is no pattern.
        CliError: the pattern matches nothing.
    """
    clean = posixpath.normpath(f"/{path}").strip("/")
    try:
        return _Found(list(pull(Listing(obj, path, recursive=recursive))), clean)
    except NotFoundError:
        if "*" not in path:
            raise
    base = posixpath.dirname(re.split(r"[*?\[]", clean, maxsplit=1)[0])
    pattern = f"{clean}/**" if recursive else clean
    found = [one for one in pull(Listing(obj, pattern, is_glob=True)) if one.path != base]
    if not found:
        raise CliError(f"Nothing matches the pattern {path!r}; `ls` without a pattern shows what is there.")
    return _Found(found, base, is_pattern=True)


def _description(entry: FileInfo) -> str:
    if entry.kind is FileKind.LINK:
        return f"a link to {entry.target!r}, which leads nowhere"
    return f"a {entry.kind.value}"


def _count(things: list[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _size(entry: FileInfo) -> str:
    if entry.kind is not FileKind.FILE:
        return ""
    size = float(entry.size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
