"""Walking directories and checking paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modal import _local_files
from modal._local_files import RelativePath, local_directory, local_file, relative_path, remote_path, walk
from modal.exception import InvalidError
from modal.file_pattern_matcher import FilePatternMatcher, as_ignore


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def places(root: Path, ignore=(), **options) -> list[str]:
    return [file.remote_path for file in walk(root, "/x", as_ignore(ignore), **options)]


def test_a_walk_lists_files_in_a_stable_order(tmp_path: Path) -> None:
    tree(tmp_path, "b.txt", "a/c.txt", "a/b/d.txt")
    assert places(tmp_path) == ["/x/a/b/d.txt", "/x/a/c.txt", "/x/b.txt"]
    assert places(tmp_path, recursive=False) == ["/x/b.txt"]
    assert next(file.remote_path for file in walk(tmp_path, "", as_ignore([]))) == "a/b/d.txt"
    assert next(file.remote_path for file in walk(tmp_path, "/", as_ignore([]))) == "/a/b/d.txt"


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        (["**/*.txt"], ["/x/a/m.py", "/x/m.py"]),
        (FilePatternMatcher("a"), ["/x/m.py", "/x/n.txt"]),
        (~FilePatternMatcher("**/*.py"), ["/x/a/m.py", "/x/m.py"]),
        (lambda path: path.is_relative_to("a"), ["/x/m.py", "/x/n.txt"]),
        (lambda path: path.stat().st_size > 4, ["/x/m.py"]),
        (lambda path: os.path.getsize(path) > 4, ["/x/m.py"]),
        (lambda path: path.name == "m.py", ["/x/a/n.txt", "/x/n.txt"]),
        (lambda path: path.read_text().startswith("a/"), ["/x/m.py", "/x/n.txt"]),
        (lambda path: path.resolve().parent.name == "a", ["/x/m.py", "/x/n.txt"]),
    ],
)
def test_every_form_of_ignore_works(tmp_path: Path, ignore, expected: list[str]) -> None:
    tree(tmp_path, "m.py", "n.txt", "a/m.py", "a/n.txt")
    assert places(tmp_path, ignore) == expected


def test_an_ignored_directory_is_not_walked(tmp_path: Path) -> None:
    tree(tmp_path, "keep", "venv/x")
    (tmp_path / "venv" / "bad").symlink_to("/nonexistent")
    seen: list[str] = []
    matcher = FilePatternMatcher("venv")
    original = type(matcher).__call__

    class Recording(FilePatternMatcher):
        def __call__(self, path) -> bool:
            seen.append(str(path))
            return original(self, path)

    assert places(tmp_path, Recording("venv")) == ["/x/keep"]
    assert not any(path.startswith("venv/") for path in seen)


def test_links_are_followed_but_a_loop_ends(tmp_path: Path) -> None:
    tree(tmp_path, "a/f")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "f")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    assert places(tmp_path) == ["/x/a/f", "/x/link"]


def test_a_very_large_directory_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_local_files, "MANY_FILES", 3)
    tree(tmp_path, *(f"f{number}" for number in range(6)))
    with pytest.warns(UserWarning, match="more than 3 files") as caught:
        assert len(places(tmp_path)) == 6
    assert len(caught) == 1


def test_only_the_executable_bit_travels(tmp_path: Path) -> None:
    tree(tmp_path, "script", "secret")
    (tmp_path / "script").chmod(0o700)
    (tmp_path / "secret").chmod(0o600)
    assert [file.mode for file in walk(tmp_path, "/", as_ignore([]))] == [0o755, 0o644]


def test_paths_in_the_container_are_checked() -> None:
    assert remote_path("/a//b/./c/") == "/a/b/c"
    assert remote_path(Path("/")) == "/"
    assert relative_path("./a//b") == "a/b"
    for wrong in ("a", "", "/a/../b", "/a\0", "/" + "x" * 256, "/\udcff", "/" + "ab/" * 2000):
        with pytest.raises(InvalidError):
            remote_path(wrong)
    with pytest.raises(InvalidError):
        relative_path("/a")


def test_a_missing_or_wrong_local_path_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="does not exist"):
        local_file(tmp_path / "no", "/x")
    with pytest.raises(InvalidError, match="use add_local_dir"):
        local_file(tmp_path, "/x")
    with pytest.raises(InvalidError, match="does not exist"):
        local_directory(tmp_path / "no")
    tree(tmp_path, "f")
    with pytest.raises(InvalidError, match="use add_local_file"):
        local_directory(tmp_path / "f")


def test_a_relative_path_compares_as_relative_and_opens_the_file(tmp_path: Path) -> None:
    tree(tmp_path, "a/f")
    path = RelativePath.make("a/f", str(tmp_path / "a" / "f"))
    assert path == Path("a/f")
    assert str(path) == "a/f"
    assert path.parts == ("a", "f")
    assert path.exists()
    assert path.absolute() == tmp_path / "a" / "f"
    with open(path) as file:
        assert file.read() == "a/f"
    assert path.with_suffix(".py") == Path("a/f.py")
