"""Makes layers of writable directories: of one as it is, or of what has changed in it since it was last copied."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intermodal.overlay.layers import Layers
from intermodal.overlay.marks import OPAQUE, REDIRECT
from intermodal.volumes.changes import Change, changes
from intermodal.volumes.durable import remove_tree
from intermodal.volumes.layer_copies import copy_changes, link
from intermodal.volumes.session import Session, print_of


@dataclass(frozen=True)
class Delta:
    """What has changed in a writable directory since it was last copied; false if nothing has."""

    changed: list[Change]
    gone: list[str]  #: paths that were copied then and are gone
    opaque: set[str]  #: directories that hide what was there before

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


def delta_of(session: Session, found: Sequence[Change], below: Layers) -> Delta:
    """What of all that its writable directory changes has not been copied. Raises OSError."""
    opaque = {one.path for one in found if one.opaque and not session.hid(one.path) and below.find(one.path)}
    paths = {one.path for one in found if session.copied.get(one.path) != print_of(one)}
    paths |= {one.path for one in found if any(map(opaque.__contains__, _parents(one.path)))}
    # The parents that the writable directory has are found there; those of a renamed directory are not.
    parents = {parent for path in paths for parent in _parents(path)}
    changed = [one for one in found if one.path in paths or (one.below is not None and one.path in parents)]
    present = {change.path for change in found}
    return Delta(changed, [path for path in session.copied if path not in present], opaque)


def copy_delta(upper: Path, draft: Path, pending: Path, delta: Delta) -> None:
    """Make a pending layer of what has changed. `draft`: where it is until it is whole. Raises OSError."""
    try:
        copy_changes(upper, draft, delta.changed, delta.gone, delta.opaque)
        draft.rename(pending)
    except BaseException:
        remove_tree(draft)
        raise


def settle(upper: Path, below: Layers) -> None:
    """Make a writable directory, which nobody writes to any more, a layer that may lie on any other.

    Renamed directories get their content. A directory that the version below did not have hides nothing there, and
    must hide nothing of others: the kernel marks new directories as opaque to save itself lookups.

    Raises OSError; it can be done again then.
    """
    found = list(changes(upper, below))
    for change in found:
        if change.below is not None:
            link(change, upper / change.path)
    for change in found:
        if not change.is_directory or change.below is not None:
            continue
        path = upper / change.path
        if change.opaque and below.find(change.path) is not None:
            os.setxattr(path, OPAQUE, b"y")
        elif change.opaque:
            _remove_mark(path, OPAQUE)
        _remove_mark(path, REDIRECT)


def _remove_mark(path: Path, name: str) -> None:
    try:
        os.removexattr(path, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:end]) for end in range(1, len(names))]
