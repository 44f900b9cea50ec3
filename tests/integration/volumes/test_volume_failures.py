"""Commits while the disk fails, and from several threads: the version is whole, the mount goes on, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mounted_volume import VOLUME, Mounted

from intermodal.runtimes.syscalls import unmount
from intermodal.volumes import manifests, upper_layer
from intermodal.volumes import session as session_module
from intermodal.volumes import store as store_module
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.recovery import recover
from intermodal.volumes.session import Session
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.verify import verify

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=300", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def content(mounts: VolumeMounts) -> dict[str, str]:
    with mounts.reading(VOLUME) as root:
        return {path.name: path.read_text() for path in root.iterdir()}


def failing(module: Any, name: str, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the call number `at` of a function fail as on a full disk."""
    real: Callable[..., Any] = getattr(module, name)
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, "no space is left")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, call)


STEPS = [
    (Path, "rename"), (Path, "mkdir"), (Path, "unlink"), (os, "chown"), (Session, "make_work"),
    (store_module, "write"), (session_module, "write"), (manifests, "write"), (manifests, "sync_tree"),
    (manifests, "entries_of"), (upper_layer, "link"), (upper_layer, "copy_changes"),
]  # fmt: skip


@pytest.mark.parametrize("way", ["detach", "copy", "copy and detach", "rebase"])
@pytest.mark.parametrize(("module", "name"), STEPS)
def test_a_commit_that_fails_at_any_step_can_be_tried_again(
    way: str, module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounted").mkdir()
    store = VolumeStore(tmp_path / "volumes")
    store.create(VOLUME)
    mounts = VolumeMounts(store, tmp_path / "run")
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("old")
    one = Mounted(store, "one", tmp_path / "mounted")
    for at in range(1, 7):
        before = content(mounts)
        (one.root / "a").write_text(f"new {at}")
        (one.root / f"b{at}").write_text("b")
        expected = {path.name: path.read_text() for path in one.root.iterdir()}
        if way == "copy and detach":
            assert one.copy()
            (one.root / f"c{at}").write_text("c")
            before, expected = expected, expected | {f"c{at}": "c"}
        if way != "copy":
            unmount(one.root)
        try:
            with monkeypatch.context() as patched:
                failing(module, name, patched, at)
                if way == "rebase":
                    if store.has_writes(one.session):
                        store.detach(one.session)
                    store.commit(one.session)
                    store.rebase(one.session)
                else:
                    (store.copy if way == "copy" else store.detach)(one.session)
                    store.commit(one.session)
        except OSError:
            assert content(mounts) in (before, expected), "old or new"
        if way != "copy":
            one.mount()
        assert {path.name: path.read_text() for path in one.root.iterdir()} == expected, "the mount has what it had"
        assert one.copy() or not store.has_changes(one.session)
        assert content(mounts) == expected, "trying again succeeds"
        assert list(verify(store, VOLUME)) == []
    one.close()
    assert list((store.root / VOLUME / "open").iterdir()) == []
    assert list((store.root / VOLUME / "pending").iterdir()) == []


@pytest.mark.parametrize(("module", "name"), STEPS)
def test_changes_from_outside_that_fail_at_any_step_are_whole_or_not_there(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VolumeStore(tmp_path / "volumes")
    store.create(VOLUME)
    mounts = VolumeMounts(store, tmp_path / "run")
    for at in range(1, 9):
        before = content(mounts)
        expected = {"a": f"new {at}", "b": "b"}
        try:
            with monkeypatch.context() as patched:
                failing(module, name, patched, at)
                with mounts.writing(VOLUME) as root:
                    (root / "a").write_text(f"new {at}")
                    (root / "b").write_text("b")
        except OSError:
            expected = content(mounts)
            assert expected in (before, {"a": f"new {at}", "b": "b"}), "old or new"
        assert content(mounts) == expected
        assert list(verify(store, VOLUME)) == []
        assert list((store.root / VOLUME / "open").iterdir()) == []
        if at % 3 == 0:
            with contextlib.suppress(OSError), monkeypatch.context() as patched:
                failing(module, name, patched, at // 3)
                mounts.merge_if_due(VOLUME, 1)
            assert content(mounts) == expected
    again = VolumeStore(store.root)
    recover(again, VOLUME)
    assert content(VolumeMounts(again, tmp_path / "run")) == expected
    assert list(verify(again, VOLUME)) == []
    assert list((store.root / VOLUME / "pending").iterdir()) == []


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    store = VolumeStore(small_disk / "volumes")
    store.create(VOLUME)
    mounts = VolumeMounts(store, tmp_path / "run")
    one = Mounted(store, "one", tmp_path / "mounted")
    (one.root / "a").write_text("a" * 1000)
    with contextlib.suppress(OSError):
        for number in range(1000):
            (one.root / str(number)).touch()  # until there are no inodes
    with pytest.raises(OSError, match="No space"):
        one.copy()
    assert content(mounts) == {}
    for path in list(one.root.iterdir())[:250]:
        if path.name != "a":
            path.unlink()
    expected = {path.name: path.read_text() for path in one.root.iterdir()}
    one.commit()
    assert content(mounts) == expected
    assert list(verify(store, VOLUME)) == []
    one.close()


def test_many_threads(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    store = VolumeStore(tmp_path / "volumes")
    store.create(VOLUME)
    mounts = VolumeMounts(store, tmp_path / "run")
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            one = Mounted(store, f"m{number}", tmp_path / "mounted")
            for turn in range(15):
                (one.root / f"{number}-{turn}").write_text(str(turn))
                (one.commit, one.copy, one.reload)[turn % 3]()
                mounts.merge_if_due(VOLUME, 3)
                mounts.merge_below_if_due(one.session, 3)
                store.collect(VOLUME)
                for earlier in range(turn + 1):
                    assert (one.root / f"{number}-{earlier}").read_text() == str(earlier)
            one.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(content(mounts)) == 4 * 15
    assert list(verify(store, VOLUME)) == []
    assert store.version(VOLUME).number == 4 * 15


def test_a_mount_that_commits_often_can_do_so_for_ever(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    store = VolumeStore(tmp_path / "volumes")
    store.create(VOLUME)
    mounts = VolumeMounts(store, tmp_path / "run")
    one = Mounted(store, "one", tmp_path / "mounted")
    for number in range(300):
        (one.root / "a").write_text(str(number))
        one.commit()
        mounts.tidy(VOLUME, one.session)
    assert len(one.session.version.layers) <= 25
    assert content(mounts) == {"a": "299"} == {path.name: path.read_text() for path in one.root.iterdir()}
    one.close()
