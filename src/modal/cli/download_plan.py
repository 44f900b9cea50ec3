"""What a download makes of the entries of a volume, which may be hostile: no link that it makes leads out of it.

A link is made as a link if it is relative and leads, also through other links, to a file or directory that is
downloaded with it. Of other links the content is downloaded, as far as they lead to something in the volume.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .._wire.messages.files import FileInfo, FileKind

Expand = Callable[[str], "list[FileInfo]"]
_LINKS = 40  #: that a path may lead through, as Linux has it


@dataclass
class Plan:
    """What is to be made, by paths relative to the destination.

    Args:
        expand: lists all that is below a directory of the volume.
        keeps_links: links can be made here.
    """

    expand: Expand = field(default=lambda path: [])
    keeps_links: bool = True
    folders: list[str] = field(default_factory=list)  #: in no order
    files: list[tuple[str, str]] = field(default_factory=list)  #: with their paths in the volume before them
    links: list[tuple[str, str]] = field(default_factory=list)  #: with what they say behind them
    left_out: list[str] = field(default_factory=list)  #: entries, and what they are

    def add(self, entries: Iterable[FileInfo], base: str, place: str = "", *, is_content_of_link: bool = False) -> None:
        """Add entries that are below the directory `base` of the volume; `place` corresponds to it."""
        tree = {posixpath.relpath(f"/{one.path}", f"/{base}"): one for one in entries}
        for path in list(tree):
            while (path := posixpath.dirname(path)) and path not in tree:  # a pattern need not match it
                tree[path] = FileInfo(path, FileKind.DIRECTORY, 0, 0)
        if place:
            self.folders.append(place)
        for path, entry in tree.items():
            at = posixpath.join(place, path)
            if entry.kind is FileKind.LINK:
                self._add_link(tree, path, entry, at, is_content_of_link)
            elif entry.kind is FileKind.DIRECTORY:
                self.folders.append(at)
            elif entry.kind is FileKind.FILE:
                self.files.append((entry.path, at))
            else:
                self.left_out.append(f"{entry.path!r}, which is a {entry.kind.value}")

    def _add_link(
        self, tree: dict[str, FileInfo], path: str, entry: FileInfo, at: str, is_content_of_link: bool
    ) -> None:
        link = f"{entry.path!r}, which is a link to {entry.target!r}"
        if self.keeps_links and leads_within(tree, path):
            self.links.append((at, entry.target))
        elif entry.leads_to is FileKind.FILE:
            self.files.append((entry.path, at))
        elif entry.leads_to is FileKind.DIRECTORY and is_content_of_link:  # which could go on without end
            self.left_out.append(f"{link}: a directory that is reached through two links")
        elif entry.leads_to is FileKind.DIRECTORY and _is_in_its_target(entry):
            self.left_out.append(f"{link}: the link is in that directory")
        elif entry.leads_to is FileKind.DIRECTORY:
            self.add(self.expand(entry.path), entry.path, at, is_content_of_link=True)
        else:
            there = "nothing is there" if entry.leads_to is None else f"a {entry.leads_to.value} is there"
            self.left_out.append(f"{link}: {there}")


def leads_within(tree: dict[str, FileInfo], link: str) -> bool:
    """Whether a link leads to a file or directory of the tree, and on its way nowhere out of it.

    Args:
        tree: entries by their paths from the tree's root, with the directories that they are in.
    """
    at, names, links = posixpath.dirname(link), [posixpath.basename(link)], 0
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not at:
                return False
            at = posixpath.dirname(at)
            continue
        path = posixpath.join(at, name)
        entry = tree.get(path)
        if entry is None:
            return False
        if entry.kind is FileKind.DIRECTORY:
            at = path
        elif entry.kind is FileKind.LINK and entry.target and not entry.target.startswith("/") and links < _LINKS:
            links += 1
            names += reversed(entry.target.split("/"))
        else:
            return entry.kind is FileKind.FILE and not names
    return True


def _is_in_its_target(link: FileInfo) -> bool:
    """Whether a link leads to a directory that it is in, such as `..`."""
    folder = posixpath.dirname(f"/{link.path}")
    target = posixpath.normpath(posixpath.join(folder, link.target)).rstrip("/")
    return f"{folder.rstrip('/')}/".startswith(f"{target}/")
