"""Volumes on disk with real overlays: commits, merges, and what a death in the middle leaves."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounted_volume import VOLUME, Mounted

from intermodal.runtimes.syscalls import unmount
from intermodal.volumes import entries
from intermodal.volumes.changes import PathTooLong
from intermodal.volumes.conflicts import Exists
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.recovery import recover
from intermodal.volumes.store import MERGE_ABOVE, VolumeStore
from intermodal.volumes.verify import verify
from modal.exception import InvalidError, NotFoundError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    one = VolumeStore(tmp_path / "volumes")
    one.create(VOLUME)
    return one


@pytest.fixture
def mounts(store: VolumeStore, tmp_path: Path) -> VolumeMounts:
    return VolumeMounts(store, tmp_path / "run")


def content(mounts: VolumeMounts) -> dict[str, str]:
    """Paths of files, and what is in them."""
    with mounts.reading(VOLUME) as root:
        return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def seen(one: Mounted) -> dict[str, str]:
    """The same as a mount shows it."""
    return {str(path.relative_to(one.root)): path.read_text() for path in sorted(one.root.rglob("*")) if path.is_file()}


@pytest.fixture
def mounted(store: VolumeStore, tmp_path: Path) -> Iterator[Callable[[str], Mounted]]:
    made: list[Mounted] = []
    (tmp_path / "mounted").mkdir()

    def make(name: str) -> Mounted:
        made.append(Mounted(store, name, tmp_path / "mounted"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_is_written_is_committed_when_the_block_ends_well(store: VolumeStore, mounts: VolumeMounts) -> None:
    assert content(mounts) == {}
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("1")
        (root / "d").mkdir()
        (root / "d/b").write_text("2")
    assert content(mounts) == {"a": "1", "d/b": "2"}
    with pytest.raises(ZeroDivisionError), mounts.writing(VOLUME) as root:
        (root / "a").write_text(str(1 // 0))
    with mounts.writing(VOLUME) as root:
        (root / "d/b").unlink()
    assert content(mounts) == {"a": "1"}
    assert store.version(VOLUME).number == 2
    with mounts.writing(VOLUME):
        pass
    assert store.version(VOLUME).number == 2, "nothing was changed"
    assert list(verify(store, VOLUME)) == []


@pytest.mark.parametrize("way", ["commit", "copy"])
def test_the_last_writer_wins_file_by_file(
    way: str, store: VolumeStore, mounts: VolumeMounts, mounted: Callable[[str], Mounted]
) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "shared").write_text("0")
        (root / "deleted").write_text("0")
        (root / "old").mkdir()
        (root / "old/x").write_text("0")
    first, second = mounted("first"), mounted("second")
    (first.root / "shared").write_text("first")
    (first.root / "of-first").write_text("1")
    (first.root / "new").mkdir()
    (first.root / "new/first").write_text("1")
    (second.root / "shared").write_text("second")
    (second.root / "deleted").unlink()
    (second.root / "new").mkdir()
    (second.root / "new/second").write_text("2")
    (second.root / "old").rename(second.root / "renamed")
    for one in (first, second):
        getattr(one, way)()
    assert content(mounts) == {
        "shared": "second",
        "of-first": "1",
        "new/first": "1",
        "new/second": "2",
        "renamed/x": "0",
    }
    first.reload()
    assert (first.root / "new/second").read_text() == "2"
    assert not (first.root / "old").exists()
    assert list(verify(store, VOLUME)) == []


@pytest.mark.parametrize("then", ["commit", "copy"])
def test_what_was_copied_is_not_committed_again(
    then: str, mounts: VolumeMounts, mounted: Callable[[str], Mounted]
) -> None:
    one = mounted("one")
    (one.root / "a").write_text("mine")
    (one.root / "gone").write_text("x")
    (one.root / "dir").mkdir()
    (one.root / "dir/b").write_text("b")
    assert one.copy()
    assert not one.copy()
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("theirs")
    (one.root / "gone").unlink()
    shutil.rmtree(one.root / "dir")
    (one.root / "c").write_text("c")
    getattr(one, then)()
    assert content(mounts) == {"a": "theirs", "c": "c"}
    assert seen(one) == {"a": "mine", "c": "c"}, "the mount keeps what it has"
    (one.root / "d").write_text("d")
    getattr(one, then)()
    assert content(mounts) == {"a": "theirs", "c": "c", "d": "d"}
    assert seen(one) == {"a": "mine", "c": "c", "d": "d"}
    one.reload()
    assert seen(one) == content(mounts)


@pytest.mark.parametrize("ways", [["commit"], ["copy"], ["copy", "commit"], ["copy", "copy", "commit"]])
def test_a_directory_that_grows_over_commits_is_whole(
    ways: list[str], mounts: VolumeMounts, mounted: Callable[[str], Mounted], store: VolumeStore
) -> None:
    one = mounted("one")
    expected = {f"d/{number}": str(number) for number in range(12)}
    for begin in ("new", "replaced", "renamed", "new"):
        if begin == "replaced":
            (one.root / "d").mkdir()
            (one.root / "d/old").write_text("old")
            one.commit()
            shutil.rmtree(one.root / "d")
        if begin == "renamed":
            (one.root / "other").mkdir()
            (one.root / "other/0").write_text("0")
            one.commit()
            (one.root / "other").rename(one.root / "d")
        (one.root / "d").mkdir(exist_ok=True)
        for number in range(12):
            (one.root / "d" / str(number)).write_text(str(number))
            if number % 3 == 2:
                getattr(one, ways[number // 3 % len(ways)])()
        assert seen(one) == expected
        one.commit()
        assert seen(one) == content(mounts) == expected
        shutil.rmtree(one.root / "d")
        one.commit()
        assert seen(one) == content(mounts) == {}
    assert list(verify(store, VOLUME)) == []


@pytest.mark.parametrize("others", [0, 100])
def test_what_is_written_through_a_mapping_after_a_copy_is_committed(
    others: int, mounts: VolumeMounts, mounted: Callable[[str], Mounted]
) -> None:
    one = mounted("one")
    (one.root / "a").write_text("0" * 4096)
    with (one.root / "a").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        for number in b"123":
            mapped[0] = number
            for other in range(others):
                (one.root / f"b{other}").write_text(str(number))
            assert one.copy()
            assert content(mounts)["a"][0] == chr(number)
        mapped[0] = ord("4")
    one.commit()
    assert content(mounts)["a"][0] == "4"


def test_a_directory_that_is_replaced_hides_what_was_in_it(
    mounts: VolumeMounts, mounted: Callable[[str], Mounted]
) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "d").mkdir()
        (root / "d/old").write_text("0")
    one = mounted("one")
    shutil.rmtree(one.root / "d")
    (one.root / "d").mkdir()
    (one.root / "d/new").write_text("1")
    one.commit()
    assert content(mounts) == {"d/new": "1"}


def test_owners_modes_links_and_holes_are_kept(mounts: VolumeMounts, mounted: Callable[[str], Mounted]) -> None:
    for way in ("commit", "copy"):
        one = mounted(way)
        folder = one.root / way
        folder.mkdir()
        (folder / "script").write_text("#!")
        (folder / "script").chmod(0o750)
        os.chown(folder / "script", 1000, 1001)
        (folder / "link").symlink_to("/etc/passwd")
        with open(folder / "sparse", "wb") as file:
            file.seek(20 * 1024**3)
            file.write(b"end")
        getattr(one, way)()
        with mounts.reading(VOLUME) as root:
            status = (root / way / "script").stat()
            assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o750, 1000, 1001)
            assert (root / way / "link").readlink() == Path("/etc/passwd")
            sparse = (root / way / "sparse").stat()
            assert sparse.st_size == 20 * 1024**3 + 3
            assert sparse.st_blocks * 512 < 1024**2


def test_many_commits_are_merged(store: VolumeStore, mounts: VolumeMounts, mounted: Callable[[str], Mounted]) -> None:
    reader = mounted("reader")
    for number in range(MERGE_ABOVE + 3):
        with mounts.writing(VOLUME) as root:
            (root / f"f{number}").write_text(str(number))
            (root / "last").write_text(str(number))
            if number:
                (root / f"f{number - 1}").unlink()
    number = MERGE_ABOVE + 2
    assert len(store.version(VOLUME).layers) < MERGE_ABOVE
    assert store.version(VOLUME).number == number + 1
    assert content(mounts) == {f"f{number}": str(number), "last": str(number)}
    assert list(verify(store, VOLUME)) == []
    assert list(reader.root.iterdir()) == [], "a mount keeps what it has"
    reader.reload()
    assert (reader.root / "last").read_text() == str(number)


def test_a_merge_reads_no_file_and_believes_none(
    store: VolumeStore, mounts: VolumeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        with mounts.writing(VOLUME) as root:
            (root / f"f{number}").write_text(str(number))
            (root / "last").write_text(str(number))
    with monkeypatch.context() as patched:
        patched.setattr(entries, "digest_of", lambda path, pool: pytest.fail(f"{path} is read"))
        assert mounts.merge_if_due(VOLUME, 1)
    assert list(verify(store, VOLUME)) == []
    with mounts.writing(VOLUME) as root:
        (root / "more").write_text("x")
    (store.layers(VOLUME, store.version(VOLUME))[1] / "f1").write_text("harm")
    assert mounts.merge_if_due(VOLUME, 1)
    [problem] = verify(store, VOLUME)
    assert "'f1' has changed" in problem


def test_a_merge_does_without_a_manifest_that_is_broken(store: VolumeStore, mounts: VolumeMounts) -> None:
    for name in "ab":
        with mounts.writing(VOLUME) as root:
            (root / name).write_text(name)
    (store.root / VOLUME / "manifests" / store.version(VOLUME).layers[0]).write_text("[[")
    assert mounts.merge_if_due(VOLUME, 1)
    assert content(mounts) == {"a": "a", "b": "b"}
    assert list(verify(store, VOLUME)) == []


def test_layers_that_are_mounted_stay(
    store: VolumeStore, mounts: VolumeMounts, mounted: Callable[[str], Mounted]
) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("1")
    one = mounted("one")
    for _ in range(MERGE_ABOVE + 2):
        with mounts.writing(VOLUME) as root:
            (root / "a").write_text("2")
    assert (one.root / "a").read_text() == "1"
    folder = store.root / VOLUME / "layers"
    assert len(list(folder.iterdir())) > len(store.version(VOLUME).layers) + 1
    one.reload()
    assert len(list(folder.iterdir())) == len(store.version(VOLUME).layers) + 1


def test_a_deleted_volume_goes_with_its_last_mount(store: VolumeStore, mounts: VolumeMounts, tmp_path: Path) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("1")
    (tmp_path / "mounted").mkdir()
    one = Mounted(store, "one", tmp_path / "mounted")
    store.delete(VOLUME)
    assert (one.root / "a").read_text() == "1"
    with pytest.raises(NotFoundError):
        store.open(VOLUME, "two")
    with pytest.raises(NotFoundError):
        one.copy() or ((one.root / "b").write_text("x") and one.copy())
    one.close()
    assert store.volumes() == []
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "second", "only_new", "refusal"),
    [
        ("x", "x", True, Exists), ("x", "x", False, None), ("x", "x/y", True, InvalidError),
        ("x/y", "x", True, InvalidError), ("x", "x/y", False, InvalidError), ("x/y", "x", False, InvalidError),
        ("x/y", "x/z", True, None), ("link/y", "d/y", True, Exists), ("d/y", "link/y", True, Exists),
    ],
)  # fmt: skip
def test_two_changes_from_outside_at_once(
    first: str, second: str, only_new: bool, refusal: type[Exception] | None, store: VolumeStore, mounts: VolumeMounts
) -> None:
    def write(root: Path, path: str, text: str) -> None:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)

    with mounts.writing(VOLUME) as root:
        (root / "d").mkdir()
        (root / "link").symlink_to("d")
    with contextlib.ExitStack() as stack:
        if refusal is not None:
            stack.enter_context(pytest.raises(refusal))
        with mounts.writing(VOLUME, only_new) as slow:
            with mounts.writing(VOLUME, only_new) as fast:
                write(fast, first, "first")
            write(slow, second, "second")
            write(slow, "other", "second")
    first = first.replace("link", "d")
    expected = {first: "first"} if refusal else {first: "first", second: "second", "other": "second"}
    assert content(mounts) == expected
    assert list(verify(store, VOLUME)) == []
    for name in ("pending", "open"):
        assert list((store.root / VOLUME / name).iterdir()) == []


@pytest.mark.parametrize("moment", ["written", "copied", "detached", "draft"])
def test_what_a_dead_server_left_is_committed_or_was_never_there(
    moment: str, store: VolumeStore, mounts: VolumeMounts, tmp_path: Path
) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("old")
    (tmp_path / "mounted").mkdir()
    one = Mounted(store, "one", tmp_path / "mounted")
    (one.root / "a").write_text("new")
    (one.root / "b").write_text("b")
    if moment == "copied":
        store.copy(one.session)
    elif moment == "detached":
        unmount(one.root)
        store.detach(one.session)
    elif moment == "draft":
        unmount(one.root)
        one.session.upper.rename(store.pending(VOLUME, "0000000099.draft"))
    unmount(one.root)
    again = VolumeStore(store.root)
    recover(again, VOLUME)
    mounts = VolumeMounts(again, tmp_path / "run")
    assert content(mounts) == ({"a": "old"} if moment == "draft" else {"a": "new", "b": "b"})
    assert list(verify(again, VOLUME)) == []
    assert [path.name for path in (again.root / VOLUME / "open").iterdir()] == []
    assert [path.name for path in (again.root / VOLUME / "pending").iterdir()] == []


def deep(root: Path, name: str) -> None:
    """Make a file at a path that is longer than any program can say, and one beside it."""
    folder = root / name
    folder.mkdir()
    (folder / "beside").write_text("beside")
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=descriptor)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


def test_paths_that_are_too_long_are_refused_and_keep_nothing_else_back(
    store: VolumeStore, mounts: VolumeMounts, tmp_path: Path
) -> None:
    (tmp_path / "mounted").mkdir()
    one = Mounted(store, "one", tmp_path / "mounted")
    (one.root / "a").write_text("a")
    deep(one.root, "deep")
    with pytest.raises(PathTooLong):
        store.copy(one.session)
    unmount(one.root)
    with pytest.raises(PathTooLong):
        store.detach(one.session)
    again = VolumeStore(store.root)
    recover(again, VOLUME)
    found = content(VolumeMounts(again, tmp_path / "run"))
    assert (found["a"], found["deep/beside"]) == ("a", "beside")
    assert not any(path.endswith("/file") for path in found)
    assert list(verify(again, VOLUME)) == []


def test_what_a_dead_server_had_copied_does_not_undo_what_others_committed_since(
    store: VolumeStore, mounts: VolumeMounts, tmp_path: Path
) -> None:
    (tmp_path / "mounted").mkdir()
    one = Mounted(store, "one", tmp_path / "mounted")
    (one.root / "a").write_text("one")
    (one.root / "b").write_text("one")
    (one.root / "gone").write_text("one")
    (one.root / "doomed").write_text("one")
    assert one.copy()
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("newer")
        (root / "gone").unlink()
    (one.root / "doomed").unlink()
    (one.root / "b").write_text("one, later")
    unmount(one.root)
    again = VolumeStore(store.root)
    assert recover(again, VOLUME) == 1
    assert content(VolumeMounts(again, tmp_path / "run")) == {"a": "newer", "b": "one, later"}
    assert list(verify(again, VOLUME)) == []


@pytest.mark.parametrize("harm", ["content", "missing", "added", "mode", "manifest", "layer"])
def test_the_checker_finds_every_kind_of_harm(harm: str, store: VolumeStore, mounts: VolumeMounts) -> None:
    with mounts.writing(VOLUME) as root:
        (root / "a").write_text("1")
    assert list(verify(store, VOLUME)) == []
    [layer] = store.version(VOLUME).layers
    folder = store.root / VOLUME / "layers" / layer
    manifest = store.root / VOLUME / "manifests" / layer
    {
        "content": lambda: (folder / "a").write_text("2"),
        "missing": lambda: (folder / "a").unlink(),
        "added": lambda: (folder / "b").write_text("x"),
        "mode": lambda: (folder / "a").chmod(0o777),
        "manifest": lambda: manifest.write_text("[["),
        "layer": lambda: shutil.rmtree(folder),
    }[harm]()
    [problem] = verify(store, VOLUME)
    assert layer in problem
