"""The server is killed before any change that a commit makes on disk: the next one finds all that was written, once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mounted_volume import VOLUME, Mounted

from intermodal.runtimes.syscalls import unmount
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.recovery import recover as recover_volume
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.verify import verify

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")

#: The functions of `os` that change which files there are.
CALLS = {
    "open", "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "mknod", "setxattr", "removexattr", "ftruncate",
}  # fmt: skip


def dies(work: Callable[[], object], at: int) -> bool:
    """Do the work in a process that is gone before its change number `at`; False if there are fewer."""
    child = os.fork()
    if child == 0:
        calls = 0

        def profile(frame: Any, event: str, function: Any) -> None:
            nonlocal calls
            if event == "c_call" and getattr(function, "__name__", "") in CALLS:
                calls += 1
                if calls == at:
                    os._exit(0)

        status = 2
        try:
            sys.setprofile(profile)
            work()
            status = 1
        finally:
            sys.setprofile(None)
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "it raised"
    return status == 0


class Place:
    """A volume with a mount that has written to it."""

    def __init__(self, folder: Path) -> None:
        (folder / "mounted").mkdir(parents=True)
        self.folder = folder
        self.store = VolumeStore(folder / "volumes")
        self.store.create(VOLUME)
        self.write(a="old", gone="old")
        self.one = Mounted(self.store, "one", folder / "mounted")
        (self.one.root / "gone").unlink()
        (self.one.root / "a").write_text("new")
        (self.one.root / "d").mkdir()
        (self.one.root / "d" / "b").write_text("b")

    def write(self, **files: str) -> None:
        """From elsewhere."""
        with VolumeMounts(self.store, self.folder / "run").writing(VOLUME) as root:
            for name, text in files.items():
                (root / name).write_text(text)

    def after_a_restart(self) -> dict[str, str]:
        unmount(self.one.root)
        store = VolumeStore(self.store.root)
        recover_volume(store, VOLUME)
        assert list((store.root / VOLUME / "open").iterdir()) == []
        assert list((store.root / VOLUME / "pending").iterdir()) == []
        assert list(verify(store, VOLUME)) == []
        layers = store.version(VOLUME).layers
        assert sorted(path.name for path in (store.root / VOLUME / "layers").iterdir()) == [*sorted(layers), "empty"]
        with VolumeMounts(store, self.folder / "run").reading(VOLUME) as root:
            return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def take(place: Place) -> None:
    """As a container's end does."""
    place.store.detach(place.one.session)
    place.store.commit(place.one.session)
    place.store.close(place.one.session)


def take_after_a_copy(place: Place) -> None:
    place.store.copy(place.one.session)
    place.store.commit(place.one.session)
    take(place)


def reload(place: Place) -> None:
    place.store.detach(place.one.session)
    place.store.commit(place.one.session)
    place.store.rebase(place.one.session)


def recover(place: Place) -> None:
    recover_volume(VolumeStore(place.store.root), VOLUME)


@pytest.mark.parametrize("work", [take, take_after_a_copy, reload, recover])
def test_a_death_in_a_commit_loses_nothing(work: Callable[[Place], None], tmp_path: Path) -> None:
    at, goes_on = 0, True
    while goes_on:
        at += 1
        place = Place(tmp_path / str(at))
        unmount(place.one.root)
        goes_on = dies(lambda place=place: work(place), at)  # type: ignore[misc]
        assert place.after_a_restart() == {"a": "new", "d/b": "b"}, at
    assert at > 20


def close(place: Place) -> None:
    place.store.close(place.one.session)


@pytest.mark.parametrize("work", [close, recover])
def test_a_death_when_all_is_committed_undoes_nothing(work: Callable[[Place], None], tmp_path: Path) -> None:
    at, goes_on = 0, True
    while goes_on:
        at += 1
        place = Place(tmp_path / str(at))
        assert place.one.copy()
        unmount(place.one.root)
        place.write(a="theirs")
        goes_on = dies(lambda place=place: work(place), at)  # type: ignore[misc]
        assert place.after_a_restart() == {"a": "theirs", "d/b": "b"}, at


def test_a_death_in_a_change_from_outside_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    at, goes_on, outcomes = 0, True, set()
    while goes_on:
        at += 1
        place = Place(tmp_path / str(at))
        goes_on = dies(lambda place=place: place.write(c="c", d1="d", e="e"), at)  # type: ignore[misc]
        VolumeMounts(place.store, place.folder / "run").clean_up()
        found = place.after_a_restart()
        assert found in ({"a": "new", "d/b": "b"}, {"a": "new", "d/b": "b", "c": "c", "d1": "d", "e": "e"}), at
        outcomes.add(len(found))
        manifests = {path.name for path in (place.store.root / VOLUME / "manifests").iterdir()}
        assert manifests == set(place.store.version(VOLUME).layers)
    assert outcomes == {2, 5}


def test_a_death_when_a_mount_begins(tmp_path: Path) -> None:
    at, goes_on = 0, True
    while goes_on:
        at += 1
        place = Place(tmp_path / str(at))
        unmount(place.one.root)
        goes_on = dies(lambda place=place: place.store.open(VOLUME, "a-second"), at)  # type: ignore[misc]
        assert place.after_a_restart() == {"a": "new", "d/b": "b"}, at


def test_a_mount_that_cannot_be_taken_up_keeps_no_other_back(tmp_path: Path) -> None:
    place = Place(tmp_path)
    broken = Mounted(place.store, "broken", tmp_path / "mounted")
    (broken.root / "c").write_text("c")
    unmount(broken.root)
    about = broken.session.folder / "version.json"
    text = about.read_bytes()
    about.write_bytes(b"")
    unmount(place.one.root)
    for _ in range(2):
        store = VolumeStore(place.store.root)
        recover_volume(store, VOLUME)
        assert [path.name for path in (store.root / VOLUME / "open").iterdir()] == ["broken"], "it is kept"
        with VolumeMounts(store, tmp_path / "run").writing(VOLUME) as root:
            assert (root / "a").read_text() == "new"
            (root / "later").write_text("x")
        VolumeMounts(store, tmp_path / "run").merge_if_due(VOLUME, 1)
    about.write_bytes(text)
    assert place.after_a_restart() == {"a": "new", "d/b": "b", "c": "c", "later": "x"}
