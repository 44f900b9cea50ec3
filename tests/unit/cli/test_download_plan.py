"""What a download makes of links, which a hostile volume may have."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from modal._wire.messages.files import FileInfo, FileKind
from modal.cli.download_plan import Plan, leads_within
from modal.cli.downloads import can_link


def tree(**links: str) -> dict[str, FileInfo]:
    """The directories d and d/e, the files f and d/e/g, the pipe p, and links."""
    kinds = {"d": FileKind.DIRECTORY, "d/e": FileKind.DIRECTORY, "d/e/g": FileKind.FILE, "f": FileKind.FILE}
    found = {path: FileInfo(path, kind, 0, 0) for path, kind in {**kinds, "p": FileKind.FIFO}.items()}
    for path, target in links.items():
        path = path.replace("_", "/")
        found[path] = FileInfo(path, FileKind.LINK, 0, 0, target)
    return found


@pytest.mark.parametrize("target", ["d", "./d/", "f", "d/e/g", "d/../f", "d/e/../../d//e/g", ".", "d/.."])
def test_what_leads_within(target: str) -> None:
    assert leads_within(tree(x=target), "x")
    assert leads_within(tree(x="y", y=target), "x")


@pytest.mark.parametrize(
    "target",
    ["", "/", "/f", "..", "../f", "d/../../f", "d/../../root/f", "gone", "gone/../f", "f/", "f/..", "p", "x", "d/x"],
)
def test_what_does_not(target: str) -> None:
    assert not leads_within(tree(x=target), "x")
    assert not leads_within(tree(x="y", y=target), "x")


def test_links_to_links() -> None:
    assert leads_within(tree(d_up="..", x="d/up/f"), "x")
    assert leads_within(tree(d_up="../d/e", d_x="up/../../f"), "d/x")
    assert not leads_within(tree(d_up="../..", x="d/up/root/f"), "x")
    assert not leads_within(tree(d_abs="/d", x="d/abs/e/g"), "x")
    assert not leads_within(tree(x="y", y="x"), "x")
    chain = {f"l{number}": f"l{number + 1}" for number in range(100)}
    assert not leads_within(tree(**chain, l100="f"), "l0")
    assert leads_within(tree(**chain, l100="f"), "l90")


def test_links_to_links_do_not_multiply_without_end() -> None:
    """Each of many directories has two links to the next one."""

    def entries(path: str) -> list[FileInfo]:
        return [FileInfo(f"{path}/{name}", FileKind.LINK, 0, 0, "/n", FileKind.DIRECTORY) for name in "ab"]

    plan = Plan(entries)
    plan.add(entries("d"), "d")
    assert (sorted(plan.folders), len(plan.left_out)) == (["a", "b"], 4)


def test_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_link(tmp_path / "not/yet")
    assert list(tmp_path.iterdir()) == []

    def refuse(*args: object) -> NoReturn:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on FAT

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert not can_link(tmp_path)
    plan = Plan(lambda path: [FileInfo(f"{path}/e/g", FileKind.FILE, 0, 0)], keeps_links=False)
    plan.add(
        [
            FileInfo("t/f", FileKind.FILE, 0, 0),
            FileInfo("t/x", FileKind.LINK, 0, 0, "f", FileKind.FILE),
            FileInfo("t/d", FileKind.LINK, 0, 0, "e", FileKind.DIRECTORY),
        ],
        "t",
    )
    assert plan.files == [("t/f", "f"), ("t/x", "x"), ("t/d/e/g", "d/e/g")]
    assert (plan.links, plan.left_out) == ([], [])
