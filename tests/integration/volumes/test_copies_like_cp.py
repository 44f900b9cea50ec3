"""`Tree.copy` beside `cp -r`: both do the same, or both refuse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from intermodal.volumes.files import Tree
from modal.exception import InvalidError, NotFoundError

LINKS = {
    "to_a": "a", "to_to_a": "to_a", "to_d1": "d1", "to_d2": "d2", "nowhere": "gone", "through": "d2/gone",
    "loop": "loop", "d2/link": "../b", "e/d1": "../d2", "f/x": "../b", "g/x": "gone", "h/x": "../d2", "i/link": "gone",
}  # fmt: skip


def make(root: Path) -> None:
    (root / "d1/sub").mkdir(parents=True)
    (root / "d2").mkdir()
    for path in ("a", "b", "d1/x", "d1/sub/y", "d2/x"):
        (root / path).write_text(path)
    (root / "d1/link").symlink_to("x")
    (root / "d1/script").write_text("#!")
    (root / "d1/script").chmod(0o755)
    for link, target in LINKS.items():
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(target)


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
        (["b"], "to_a"), (["b"], "to_to_a"), (["a"], "to_a"), (["to_a"], "a"), (["d1/x"], "to_d2"), (["b"], "to_d2/"),
        (["a", "b"], "to_d2"), (["b"], "nowhere"), (["b"], "through"), (["b"], "loop"),
        (["d1/script"], "to_a"), (["d1/script"], "b"), (["d1"], "to_d2"), (["d1"], "to_d1"), (["d1/sub"], "to_d1"),
        (["d1"], "e"), (["d1/."], "f"), (["d1/."], "g"), (["d1/."], "h"), (["d1/."], "i"), (["d1/."], "to_d2"),
        (["d1"], "to_a"), (["d1"], "nowhere"), (["b", "a"], "f"), (["d1/x"], "f"), (["d1/x"], "g"), (["d1/x"], "h"),
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


@pytest.mark.parametrize("link", ["{beside}/secret", "../beside/secret", "../../../../../../../../..{beside}/secret"])
def test_no_copy_leaves_the_tree_by_a_link(link: str, tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "beside"
    for folder in (root, beside):
        folder.mkdir()
    make(root)
    (beside / "secret").write_text("secret")
    (root / "outside").symlink_to(link.format(beside=beside))
    before = seen(root)
    with Tree(root) as tree:
        with pytest.raises(InvalidError, match="leads nowhere"):
            tree.copy(["a"], "outside")
        assert seen(root) == before
        inside = root / link.format(beside=beside).replace("../", "").lstrip("/")
        inside.parent.mkdir(parents=True)
        inside.write_text("old")
        tree.copy(["a"], "outside")
    assert inside.read_text() == "a"
    assert (root / "outside").is_symlink()
    assert [path.read_text() for path in beside.iterdir()] == ["secret"]
