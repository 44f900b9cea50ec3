"""Random changes in several mounts of a volume, compared with plain directories and with what commits promise.

Each mount has a plain directory beside it, where the same is done: they must look alike at every moment. Every commit
must change the volume as `Model.commit` says, and nothing else.

`INTERMODAL_TEST_SEQUENCES=2000` runs more of them than the few of the default run.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mounted_volume import VOLUME, Mounted

from intermodal.runtimes.syscalls import unmount
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.recovery import recover
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.verify import verify

SEQUENCES = int(os.environ.get("INTERMODAL_TEST_SEQUENCES", "40"))
STEPS = 60
NAMES = ("a", "b", "c")

View = dict[str, tuple[Any, ...]]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


def view(root: Path) -> View:
    """Everything below a directory."""
    found: View = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name, mode = str(path.relative_to(root)), stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            found[name] = ("directory", mode)
        elif stat.S_ISLNK(status.st_mode):
            found[name] = ("link", str(path.readlink()))
        else:
            found[name] = ("file", mode, path.read_text())
    return found


def parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:end]) for end in range(1, len(names))]


def within(path: str, found: View) -> list[str]:
    return [other for other in found if other == path or other.startswith(f"{path}/")]


def without_modes_of_directories(found: View) -> View:
    return {path: ("directory",) if entry[0] == "directory" else entry for path, entry in found.items()}


# -- what is done in a mount, as far as there is what it needs: else OSError


def write(root: Path, path: str, text: str) -> None:
    (root / path).write_text(text)


def append(root: Path, path: str, text: str) -> None:
    with (root / path).open("a") as file:
        file.write(text)


def truncate(root: Path, path: str, text: str) -> None:
    os.truncate(root / path, 1)


def make_directory(root: Path, path: str, text: str) -> None:
    (root / path).mkdir()


def make_directories(root: Path, path: str, text: str) -> None:
    (root / path / "a/b").mkdir(parents=True)
    (root / path / "a/b/c").write_text(text)


def delete(root: Path, path: str, text: str) -> None:
    (root / path).unlink()


def delete_tree(root: Path, path: str, text: str) -> None:
    shutil.rmtree(root / path)


def make_anew(root: Path, path: str, text: str) -> None:
    shutil.rmtree(root / path)
    (root / path).mkdir()
    (root / path / "b").write_text(text)


def make_link(root: Path, path: str, text: str) -> None:
    (root / path).symlink_to(f"nowhere/{text}")


def change_mode(root: Path, path: str, text: str) -> None:
    if (root / path).is_symlink():
        raise OSError(errno.ELOOP, "a link has no mode")
    (root / path).chmod(0o700 + len(text))


def file_for_directory(root: Path, path: str, text: str) -> None:
    shutil.rmtree(root / path)
    (root / path).write_text(text)


def directory_for_file(root: Path, path: str, text: str) -> None:
    (root / path).unlink()
    (root / path).mkdir()
    (root / path / "a").write_text(text)


ALONE: list[Callable[[Path, str, str], None]] = [
    write, write, write, append, truncate, make_directory, make_directories, make_directories, delete, delete_tree,
    make_anew, make_link, change_mode, file_for_directory, directory_for_file,
]  # fmt: skip


class Pair:
    """A mount, the directory that it is compared with, and what it has changed since its last commit."""

    def __init__(self, mount: Mounted, plain: Path) -> None:
        self.mount, self.plain = mount, plain
        shutil.copytree(mount.root, plain, symlinks=True)
        self.begin(view(plain))

    def begin(self, now: View) -> None:
        """Mounted anew, with nothing changed."""
        self.before = now
        self.renamed: set[str] = set()  # directories; whether one that is back where it was has been away is not known
        self.failed: set[str] = set()  # renames that failed: the kernel may have copied the directory up before
        self.copied = False
        self.committed()

    def committed(self) -> None:
        self.before = view(self.plain)
        self.touched: set[str] = set()
        self.made: set[str] = set()  # directories

    def change(self, random: random.Random, number: int) -> str:
        """One random change, done in both."""
        now = view(self.plain)
        path = self._path(random, now)
        if random.random() < 0.3:
            other = self._path(random, now)
            text = f"rename {path} {other}"

            def do(root: Path) -> None:
                (root / path).rename(root / other)
        else:
            operation = random.choice(ALONE)
            text = f"{operation.__name__} {path}"
            content = "x" * (number % 7) + str(number)

            def do(root: Path) -> None:
                operation(root, path, content)

            other = path
        errors = []
        for root in (self.plain, self.mount.root):
            try:
                do(root)
                errors.append(0)
            except OSError as error:
                errors.append(error.errno or -1)
        assert errors[0] == errors[1], f"{text}: plain {errors[0]}, mount {errors[1]}"
        after = view(self.plain)
        touched = {one for one in now.keys() | after.keys() if now.get(one) != after.get(one)}
        if not errors[0]:
            if text.split()[0] in ("write", "append", "truncate", "change_mode"):
                touched |= {path} & after.keys()
            elif not text.startswith("make_dir") and (path != other or not text.startswith("rename")):
                touched |= {one for name in (path, other) for one in (*within(name, now), *within(name, after))}
        made = set()
        if not errors[0] and ("rename" in text or "make" in text or "directory" in text):
            made = {one for one in touched if after.get(one, "x")[0] == "directory"}
        self.touched |= touched
        if text.startswith("rename"):
            self.renamed |= made
            self.failed |= {path} if errors[0] else set()
        self.made |= made
        return text + (f" (errno {errors[0]})" if errors[0] else "")

    @staticmethod
    def _path(random: random.Random, now: View) -> str:
        if now and random.random() < 0.6:
            return random.choice(sorted(now))
        folders = [path for path, entry in now.items() if entry[0] == "directory" and path.count("/") < 3]
        folder = random.choice([*sorted(folders), ""])
        name = random.choice(NAMES)
        return f"{folder}/{name}" if folder else name


class Model:
    """A volume, its mounts, and what is committed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.history: list[str] = []
        self.store = VolumeStore(folder / "volumes")
        self.store.create(VOLUME)
        self.mounts = VolumeMounts(self.store, folder / "run")
        self.committed: View = {}
        self.pairs: list[Pair] = []
        self.most = 1 + seed % 3
        self.names = 0

    # -- what commits promise

    def commit(self, pair: Pair) -> set[str]:
        """Change `committed` as the last commit of the pair must have; returns the paths that may or may not be there.

        Every file, link and directory that was changed is as the mount has it, with its parents. What was deleted is
        gone, with all that is below it; its parents are there. A directory that took the place of another hides what
        that had.
        """
        before, touched, made = pair.before, pair.touched, pair.made
        now, result = view(pair.plain), self.committed
        unsure = {one for path in pair.failed for one in (path, *parents(path)) if one in now and one not in result}
        for path in sorted(touched):
            folders = [one for one in parents(path) if now.get(one, ("none",))[0] == "directory"]
            if path not in now and path not in before:  # it came and went
                unsure |= {one for one in folders if result.get(one, ("none",))[0] != "directory"}
                continue
            for folder in folders:
                if result.get(folder, ("directory",))[0] != "directory":
                    del result[folder]
                result[folder] = now[folder]
            if path not in now:
                for one in within(path, result):
                    del result[one]
                continue
            others = [one for one in within(path, result) if one != path]
            is_directory = now[path][0] == "directory"
            if is_directory and (path in pair.renamed or (path in made and pair.copied)):
                unsure |= {one for one in others if one not in now}
            elif not is_directory or (path in made and path in before):
                for one in others:
                    del result[one]
            result[path] = now[path]
        return unsure

    def check_committed(self, unsure: set[str] | None = None) -> None:
        with self.mounts.reading(VOLUME) as root:
            found = view(root)
        unsure = unsure or set()
        expected = {path: entry for path, entry in self.committed.items() if path not in unsure}
        sure = {path: entry for path, entry in found.items() if path not in unsure}
        assert without_modes_of_directories(sure) == without_modes_of_directories(expected)
        self.committed = found

    def check(self) -> None:
        for pair in self.pairs:
            assert view(pair.mount.root) == view(pair.plain)

    # -- steps

    def step(self, number: int) -> None:
        random = self.random
        if len(self.pairs) < self.most:
            self.say("open")
            self.open()
        pair = random.choice(self.pairs)
        choice = random.random()
        name = self.pairs.index(pair)
        if choice < 0.72:
            self.say(f"{name}: {pair.change(random, number)}")
        elif choice < 0.80:
            self.say(f"{name}: commit")
            pair.mount.commit()
            unsure = self.commit(pair)
            pair.begin(view(pair.plain))
            self.check_committed(unsure)
            self.check_alone(pair)
        elif choice < 0.88:
            self.say(f"{name}: copy")
            pair.mount.copy()
            unsure = self.commit(pair)
            pair.committed()
            pair.copied = True
            self.check_committed(unsure)
            self.check_alone(pair)
        elif choice < 0.92:
            self.say(f"{name}: reload")
            pair.mount.reload()
            unsure = self.commit(pair)
            self.check_committed(unsure)
            shutil.rmtree(pair.plain)
            shutil.copytree(pair.mount.root, pair.plain, symlinks=True)
            pair.begin(view(pair.plain))
            assert view(pair.plain) == self.committed
        elif choice < 0.94:
            self.say("server")
            self.write_by_server(number)
        elif choice < 0.96:
            self.say("merge")
            self.mounts.merge_if_due(VOLUME, 2)
            self.mounts.merge_below_if_due(pair.mount.session, 2)
            self.check_committed()
        elif choice < 0.98:
            self.say(f"{name}: close")
            pair.mount.close()
            self.pairs.remove(pair)
            self.check_committed()
        else:
            self.say("crash")
            self.crash()

    def say(self, text: str) -> None:
        self.history.append(text)

    def open(self) -> None:
        self.names += 1
        mount = Mounted(self.store, f"m{self.names:03d}", self.folder / "mounted")
        self.pairs.append(Pair(mount, self.folder / f"plain-{self.names}"))
        assert view(self.pairs[-1].plain) == self.committed

    def write_by_server(self, number: int) -> None:
        with self.mounts.writing(VOLUME) as root:
            shutil.rmtree(root / "a", ignore_errors=True)
            (root / "a").unlink(missing_ok=True)
            (root / "a").mkdir()
            (root / "a/server").write_text(str(number))
            expected = view(root)
        assert self.committed | expected
        self.committed = expected
        self.check_committed()

    def crash(self) -> None:
        """The server dies; what mounts have written is committed by the next."""
        late = self.random.choice(self.pairs)
        detached = self.random.random() < 0.5
        unsure: set[str] = set()
        if detached:
            unmount(late.mount.root)
            self.store.detach(late.mount.session)
            unsure |= self.commit(late)
        for pair in self.pairs:
            unmount(pair.mount.root)
        for pair in sorted(self.pairs, key=lambda one: one.mount.session.session_id):
            if pair is not late or not detached:
                unsure |= self.commit(pair)
        self.pairs = []
        self.store = VolumeStore(self.folder / "volumes")
        recover(self.store, VOLUME)
        self.mounts = VolumeMounts(self.store, self.folder / "run")
        self.check_committed(unsure)

    def check_alone(self, pair: Pair) -> None:
        if self.most == 1 and len(self.pairs) == 1 and "server" not in self.history:
            with self.mounts.reading(VOLUME) as root:
                assert view(root) == view(pair.plain)

    def end(self) -> None:
        for pair in self.pairs:
            pair.mount.close()
        self.check_committed()
        assert list(verify(self.store, VOLUME)) == []
        folder = self.store.root / VOLUME
        for name in ("open", "pending"):
            assert list((folder / name).iterdir()) == []
        layers = set(self.store.version(VOLUME).layers)
        assert {path.name for path in (folder / "layers").iterdir()} == {*layers, "empty"}
        assert {path.name for path in (folder / "manifests").iterdir()} == layers


@pytest.mark.parametrize("part", range(8))
def test_random_changes_of_several_mounts(part: int, tmp_path: Path) -> None:
    for seed in range(part, SEQUENCES, 8):
        folder = tmp_path / str(seed)
        (folder / "mounted").mkdir(parents=True)
        model = Model(folder, seed)
        try:
            for number in range(STEPS):
                model.step(number)
                model.check()
            model.end()
        except BaseException as error:
            error.add_note(f"seed {seed}:\n" + "\n".join(model.history))
            raise
        finally:
            for path in (folder / "mounted").iterdir():
                while unmount(path):
                    pass
        shutil.rmtree(folder)
