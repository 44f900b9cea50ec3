"""`Tree.copy` beside `cp -r`: both do the same, or both refuse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from intermodal.volumes.files import Tree
from modal.exception import InvalidError, NotFoundError


def make(root: Path) -> None:
    (root / "d1/sub").mkdir(parents=True)
    (root / "d2").mkdir()
    for path in ("a", "b", "d1/x", "d1/sub/y", "d2/x"):
        (root / path).write_text(path)
    (root / "d1/link").symlink_to("x")
    (root / "d1/script").write_text("#!")
    (root / "d1/script").chmod(0o755)


def seen(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else oct(path.stat().st_mode)
        if path.is_dir()
        else oct(path.stat().st_mode) + path.read_text()
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize(
    ("sources", "target"),
    [
        (["a"], "new"), (["a"], "b"), (["a"], "d1"), (["a"], "d1/"), (["a"], "new/"), (["a"], "d1/new"),
        (["a"], "no/new"),
        (["a", "b"], "d2"), (["a", "b"], "b"), (["a", "b"], "new"), (["a", "none"], "d2"), (["a"], "a"),
        (["d1"], "d2"), (["d1"], "new"), (["d1"], "new/"), (["d1/"], "new"), (["d1"], "d1"), (["d1"], "d1/sub"),
        (["d1"], "d1/new"), (["d1"], "a"), (["d1/."], "d2"), (["d1/."], "new"), (["d1/./"], "d2"), (["d1", "a"], "d2"),
        (["d1/x"], "d2"), (["d1/sub/.", "b"], "d2"), (["d1"], "no/new"),
    ],
)  # fmt: skip
def test_it_is_what_cp_does(sources: list[str], target: str, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for root in (ours, theirs):
        make(root)
    done = subprocess.run(["cp", "-r", "--", *sources, target], cwd=theirs, capture_output=True, text=True)
    try:
        with Tree(ours) as tree:
            tree.copy(sources, target)
        refused = ""
    except (InvalidError, NotFoundError) as error:
        refused = str(error)
    assert bool(refused) == bool(done.returncode), f"ours: {refused}, cp: {done.stderr}"
    if not refused:
        assert seen(ours) == seen(theirs)


def test_the_root_is_not_copied_into_itself(tmp_path: Path) -> None:
    make(tmp_path)
    before = seen(tmp_path)
    for source in ("/", ".", ""):
        with Tree(tmp_path) as tree, pytest.raises(InvalidError, match="into itself"):
            tree.copy([source], "d1")
    assert seen(tmp_path) == before
