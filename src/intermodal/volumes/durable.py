"""Files on disk: writing them so that a death at any moment leaves the old content or the new, and deleting them."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from intermodal.volumes.changes import opened
from intermodal.volumes.entries import PATH_LIMIT

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
#: More files than this are made durable together with everything else on their file system.
ONE_BY_ONE = 64


def write(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file. Raises OSError, with the old content in place."""
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if sync:
        _sync(path.parent)


def sync_tree(root: Path, files: Sequence[str]) -> None:
    """Make a tree durable, whose regular files these are. Raises OSError."""
    if len(files) > ONE_BY_ONE:
        sync_file_system(root)
        return
    for path in files:
        _sync(root / path)
    for folder in {root, *((root / path).parent for path in files)}:
        _sync(folder)


def sync_file_system(path: Path) -> None:
    """Make everything durable that is on the file system of a directory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"sync {path}: {os.strerror(code)}")
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Delete a tree, however deep; what cannot be deleted stays, and the log says so."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)
    if os.path.lexists(path):
        log.warning("%s could not be deleted", path)


def remove_long(top: Path) -> None:
    """Delete what is below `top` at paths of more than `PATH_LIMIT` bytes, while nobody uses that. Raises OSError."""
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folders = [""]
        while folders:
            path = folders.pop()
            with opened(root, path) as folder:
                here = Path(f"/proc/{os.getpid()}/fd/{folder}")
                for entry in [] if folder is None else list(os.scandir(folder)):
                    full = f"{path}/{entry.name}" if path else entry.name
                    if len(os.fsencode(full)) <= PATH_LIMIT:
                        folders += [full] if entry.is_dir(follow_symlinks=False) else []
                    elif entry.is_dir(follow_symlinks=False):
                        remove_tree(here / entry.name)
                    else:
                        (here / entry.name).unlink()
    finally:
        os.close(root)


__all__ = ["ONE_BY_ONE", "remove_long", "remove_tree", "sync_file_system", "sync_tree", "write"]
