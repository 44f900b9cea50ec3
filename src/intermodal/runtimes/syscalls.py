"""System calls that the standard library lacks: mounting, user namespaces' id maps on mounts, and subreaping."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x00100000
# These have the same numbers on every architecture since Linux 5.2.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _check(result: int, action: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{action}: {os.strerror(code)}")
    return result


def mount(source: str, target: Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode() if data else None
    )
    _check(result, f"mount {fstype or 'bind'} at {target}")


def bind_read_only(source: Path, target: Path) -> None:
    """Show the directory `source` at `target`, read-only and private. Raises OSError."""
    mount(str(source), target, "", MS_BIND)
    mount("", target, "", MS_PRIVATE)
    mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def make_shared_point(point: Path) -> None:
    """Mount the directory `point` on itself such that bind mounts of it follow what is mounted there.

    Raises OSError.
    """
    mount(str(point), point, "", MS_BIND)
    mount("", point, "", MS_PRIVATE)  # apart from the mounts around it, whose peers it would become
    mount("", point, "", MS_SHARED)


def unmount(target: Path) -> bool:
    """Detach what is mounted at `target`; False when nothing is. Raises OSError."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
        return False
    raise OSError(code, f"unmount {target}: {os.strerror(code)}")


def bind_idmapped(source: Path, target: Path, user_namespace: int) -> None:
    """Show `source` read-only at `target`, with owners shifted as `user_namespace` (a descriptor) maps them.

    A file of uid 0 in `source` belongs at `target` to whoever is uid 0 in that namespace. Raises OSError.
    """
    tree = clone_mount(source)
    try:
        attributes = _MountAttr(
            attr_set=_MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE, userns_fd=user_namespace
        )
        _check(
            _libc.syscall(
                _SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.sizeof(attributes)
            ),
            f"shift the owners of {source}",
        )
        attach_mount(tree, target)
    finally:
        os.close(tree)


def clone_mount(source: Path) -> int:
    """Return a descriptor of one more mount of the directory `source`, which is attached nowhere. Raises OSError."""
    return _check(
        _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC),
        f"clone the mount of {source}",
    )


def attach_mount(tree: int, target: Path) -> None:
    """Mount what `clone_mount` returned. Raises OSError."""
    _check(
        _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH),
        f"attach {target}",
    )


def open_in_root(root: int, path: str, flags: int, mode: int = 0, *, links: bool = True) -> int:
    """Open `path` below the directory `root` (a descriptor): for links and ``..`` that is all of the file system.

    Without `links` a path with a link in it is refused (ELOOP).

    Returns a descriptor that is closed on exec. Raises OSError.
    """
    how = _OpenHow(
        flags=flags | os.O_CLOEXEC,
        mode=mode if flags & os.O_CREAT else 0,
        resolve=_RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS),
    )
    result = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(result)


def become_subreaper() -> None:
    """Orphaned descendants become children of this process, so that it can wait for them. Raises OSError."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become a subreaper")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "make namespaces")


def enter_namespace(path: str, kind: int) -> None:
    """Join the namespace at `path`, whose kind is one of the CLONE constants. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, kind), f"enter {path}")
    finally:
        os.close(descriptor)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have this process, and what it becomes by exec, get a signal when the thread that started it ends.

    Raises OSError.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, by.value, 0, 0, 0), "die with the parent")
