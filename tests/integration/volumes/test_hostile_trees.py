"""Files of users are listed, read and changed below their root, whatever they have made there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from intermodal.control.file_service import _take
from intermodal.volumes.durable import remove_tree
from intermodal.volumes.files import Tree
from modal.exception import InvalidError, NotFoundError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root").mkdir()
    yield tmp_path / "root"
    remove_tree(tmp_path / "root")


def names(tree: Tree, pattern: str) -> list[str]:
    return [entry.path for entry in tree.match(pattern)]


@pytest.mark.parametrize("target", ["/etc", "../outside", "../../../../../../etc", "/proc/self/root/etc"])
def test_links_lead_nowhere_else(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    with Tree(root) as tree:
        assert [(one.path, one.kind) for one in tree.entries("", True)] == [("link", "link")]
        for name in ("secret", "passwd"):
            with pytest.raises(NotFoundError):
                tree.open(f"link/{name}")
        with pytest.raises((InvalidError, NotFoundError)), tree.replacing("link/new", 0o644) as descriptor:
            os.write(descriptor, b"x")
        tree.remove("link", True)
    assert sorted(path.name for path in (root.parent / "outside").iterdir()) == ["secret"]
    assert list(root.iterdir()) == []


def test_circles_and_what_is_no_file(root: Path) -> None:
    (root / "circle").symlink_to("circle")
    (root / "up").symlink_to(".")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o20666, os.makedev(1, 3))
    with Tree(root) as tree:
        assert {one.path: one.kind for one in tree.entries("", True)} == {
            "circle": "link", "device": "device", "fifo": "fifo", "up": "link",
        }  # fmt: skip
        for name in ("circle", "fifo", "device", "up", "up/up/fifo"):
            with pytest.raises((InvalidError, NotFoundError)):
                tree.open(name)


def test_names_that_are_no_text_are_shown(root: Path) -> None:
    for name in (b"caf\xe9", "café".encode(), b"two\nlines", b"-rf"):
        (root / os.fsdecode(name)).write_text("x")
    with Tree(root) as tree:
        shown = [info.path for info in _take(tree.entries("", False))]
        assert sorted(shown) == sorted([r"caf\xe9", "café", "two\nlines", "-rf"])
        "".join(shown).encode()
        assert names(tree, "two*") == ["two\nlines"]
        (root / r"lit\xe9").write_text("literal")
        for name in shown:
            os.close(tree.open(name))
        with open(tree.open(r"lit\xe9")) as file:
            assert file.read() == "literal"
        [found] = tree.entries(r"caf\xe9", False)
        assert found.path == os.fsdecode(b"caf\xe9")
        tree.remove(r"caf\xe9", False)
        tree.remove(r"lit\xe9", False)
        assert tree.find(r"lit\xe9") is None
        with pytest.raises(NotFoundError):
            tree.open(r"caf\xe9")


def test_trees_deeper_than_a_path_can_be_are_refused_and_deleted(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with Tree(root) as tree:
        with pytest.raises(InvalidError, match="too long"):
            list(tree.entries("", True))
        with pytest.raises(InvalidError):
            tree.find("x" * 5000)
        with pytest.raises(InvalidError):
            tree.open("x" * 300)
        tree.remove("deep", True)
    assert list(root.iterdir()) == []


def test_a_directory_that_is_replaced_by_a_link_meanwhile_is_not_followed(root: Path) -> None:
    (root / "d").mkdir()
    (root / "link").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "x")
            (root / "link").rename(root / "d")
            (root / "d").rename(root / "link")
            (root / "x").rename(root / "d")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        with Tree(root) as tree:
            for _ in range(300):
                try:
                    os.close(tree.open("d/secret"))
                    pytest.fail("it was opened")
                except (NotFoundError, InvalidError):
                    pass
    finally:
        stop.set()
        swapping.join()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "d/b.txt", "d/e/c.txt"]),
        ("d/**", ["d/b.txt", "d/e", "d/e/c.txt"]),
        ("d/*", ["d/b.txt", "d/e"]),
        ("?/b.txt", ["d/b.txt"]),
        ("[a-d]/*.txt", ["d/b.txt"]),
        ("[!d]/*", []),
        ("none/*", []),
        ("[z-a]", []),
        ("*" * 40 + "x/" + "**/" * 60 + "y", []),
        ("*a" * 40 + "b", []),
    ],
)
def test_globs(root: Path, pattern: str, expected: list[str]) -> None:
    (root / "d/e").mkdir(parents=True)
    for name in ("a.txt", "d/b.txt", "d/e/c.txt"):
        (root / name).write_text("x")
    (root / ("a" * 200)).write_text("")
    with Tree(root) as tree:
        assert sorted(names(tree, pattern)) == expected


def test_a_directory_that_is_deleted_while_a_file_is_put_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder = Tree.make_folder

    def made_and_deleted(self: Tree, path: str) -> None:
        make_folder(self, path)
        (root / "d").rmdir()

    monkeypatch.setattr(Tree, "make_folder", made_and_deleted)
    with Tree(root) as tree, pytest.raises(InvalidError, match="'/d/file'"), tree.replacing("d/file", 0o644):
        pass


def test_a_link_is_not_copied_over_a_directory(root: Path) -> None:
    (root / "source").mkdir()
    (root / "source/name").symlink_to("anywhere")
    (root / "target/source/name").mkdir(parents=True)
    with Tree(root) as tree, pytest.raises(InvalidError, match="'/target/source/name' is a directory"):
        tree.copy(["source"], "target")
    assert (root / "target/source/name").is_dir()
