"""Mount trees: the files that users mount, as a directory that becomes the topmost read-only layer of a container.

A tree is made once for an image and a set of files. It depends on the image since it must fit it: where the image
says `/lib -> usr/lib`, a file for `/lib` goes to `usr/lib`, or the link would be hidden and the image broken; and a
directory that the image has keeps its owner and mode, which the topmost layer decides.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from intermodal.model.container import BuiltImage
from intermodal.model.errors import BadImage, DiskFull, RuntimeFailure
from intermodal.node.image_paths import ImagePaths
from modal._wire.messages.common import FileEntry
from modal.exception import NotFoundError

_UNUSED_SECONDS = 7 * 24 * 3600.0


class TreeStore:
    """Makes and keeps trees below `home`, from blobs that `blob_path` finds by digest."""

    def __init__(self, home: Path, blob_path: Callable[[str], Path]) -> None:
        self._home = home
        self._blob_path = blob_path
        self._making: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Remove unfinished trees of an earlier process, and those that nothing has used for a week."""
        self._home.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - _UNUSED_SECONDS
        for tree in self._home.iterdir():
            if tree.name.startswith(".new-") or tree.stat().st_mtime < oldest:
                shutil.rmtree(tree, ignore_errors=True)

    async def get(self, image: BuiltImage, files: Sequence[FileEntry]) -> Path:
        """Return the directory of a tree, made now if need be.

        Raises BadImage (the files do not fit the image), RuntimeFailure or DiskFull.
        """
        key = tree_key(image, files)
        tree = self._home / key
        task = self._making.get(key)
        if task is None:
            if tree.is_dir():
                os.utime(tree)
                return tree
            task = self._making[key] = asyncio.create_task(asyncio.to_thread(self._make, tree, image, files))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        await asyncio.shield(task)
        return tree

    def _make(self, tree: Path, image: BuiltImage, files: Sequence[FileEntry]) -> None:
        try:
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._home))
            try:
                write_tree(new, ImagePaths(image.layers), files, self._blob_path)
                os.utime(new)
                new.rename(tree)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"No space is left below {self._home} for mounted files.") from error
            raise RuntimeFailure(f"Mounted files could not be prepared: {error}.") from error


def tree_key(image: BuiltImage, files: Sequence[FileEntry]) -> str:
    """Name a tree by everything that it depends on."""
    content = [image.image_id, [[file.path, file.digest, file.mode] for file in files]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_tree(
    top: Path,
    image: ImagePaths,
    files: Sequence[FileEntry],
    blob_path: Callable[[str], Path],
    may_link: bool = True,
) -> None:
    """Write `files` (later ones win) into the empty directory `top`, as links to the blobs where that is possible.

    Raises as `TreeStore.get`, and OSError.
    """
    places: dict[PurePosixPath, FileEntry] = {}
    directories: dict[PurePosixPath, PurePosixPath] = {}
    for file in files:
        path = checked_path(file.path)
        if path.parent not in directories:
            directories[path.parent] = image.resolve_directory(path.parent)
        places[directories[path.parent] / path.name] = file
    _like_image(top, image, PurePosixPath("/"))
    made = {PurePosixPath("/")}
    for place, file in places.items():
        found = image.lstat(place)
        if found is not None and stat.S_ISDIR(found[1].st_mode):
            raise BadImage(f"The file {file.path} cannot be mounted: it is a directory in the image.")
        for directory in reversed(place.parents):
            if directory in places:
                raise BadImage(f"Nothing can be mounted below {directory}: a file is mounted there.")
            if directory not in made:
                target = top / directory.relative_to("/")
                target.mkdir()
                _like_image(target, image, directory)
                made.add(directory)
        target = top / place.relative_to("/")
        if place in made:
            raise BadImage(f"The file {file.path} cannot be mounted: other files are mounted below that path.")
        _write_file(target, file, blob_path, may_link)


def checked_path(text: str) -> PurePosixPath:
    """An absolute path without `..`, or BadImage."""
    path = PurePosixPath(text)
    if (
        not path.is_absolute()
        or ".." in path.parts
        or "\0" in text
        or path == PurePosixPath("/")
        or text.startswith("//")
    ):
        raise BadImage(f"The mounted path {text!r} must be absolute and without '..'.")
    return path


def _like_image(directory: Path, image: ImagePaths, path: PurePosixPath) -> None:
    found = image.lstat(path)
    if found is None or not stat.S_ISDIR(found[1].st_mode):
        directory.chmod(0o755)
        return
    os.chown(directory, found[1].st_uid, found[1].st_gid)
    directory.chmod(stat.S_IMODE(found[1].st_mode))


def _write_file(target: Path, file: FileEntry, blob_path: Callable[[str], Path], may_link: bool) -> None:
    try:
        blob = blob_path(file.digest)
        status = blob.stat()
    except (NotFoundError, FileNotFoundError):
        raise RuntimeFailure(f"The content of the mounted file {file.path} is missing; upload it again.") from None
    mode = file.mode & 0o777
    if may_link and stat.S_IMODE(status.st_mode) == mode and status.st_uid == 0:
        try:
            os.link(blob, target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
    shutil.copyfile(blob, target)
    target.chmod(mode)
