"""How overlayfs writes into a layer what is not in it, or elsewhere."""

from __future__ import annotations

import os
import stat

OPAQUE = "trusted.overlay.opaque"  #: "y" on a directory that hides what lower layers have in it
REDIRECT = "trusted.overlay.redirect"  #: on a directory that was renamed: where lower layers have what is in it
ORIGIN = "trusted.overlay.origin"  #: what a directory was copied from; empty: that is not known
#: Numbers of the device of a whiteout: it deletes what lower layers have of this name.
WHITEOUT = os.makedev(0, 0)


def is_opaque(path: str | os.PathLike[str]) -> bool:
    """Whether a directory hides what lower layers have in it."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT
