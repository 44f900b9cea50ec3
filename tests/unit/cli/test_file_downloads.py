"""How `get` downloads files: some at a time, and in order when something fails."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal import _sync
from modal.cli import downloads
from modal.cli.errors import CliError
from modal.cli.tables import print_table
from modal.exception import NotFoundError


class _Reading:
    """Files that hold their path, in two pieces; "missing" is none, and those named "slow…" have no end."""

    under_way = 0
    at_most = 0

    def __init__(self, obj: Any, paths: list[str]) -> None:
        self.parts = self._parts(paths)
        _Reading.under_way += 1
        _Reading.at_most = max(_Reading.at_most, _Reading.under_way)

    def _parts(self, paths: list[str]) -> Iterator[list[tuple[str, bytes]]]:
        for path in paths:
            if path == "missing":
                raise NotFoundError("There is no file '/missing' in it.")
            yield [(path, path.encode())]
            while path.startswith("slow"):
                yield [("", b"x")]
            yield [("", b"!")]

    async def next(self) -> list[tuple[str, bytes]]:
        await asyncio.sleep(0.001)
        return next(self.parts, [])

    async def close(self) -> None:
        _Reading.under_way -= 1


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FilesReading", _Reading)
    monkeypatch.setattr(downloads, "_IN_A_REQUEST", 3)
    _Reading.under_way = _Reading.at_most = 0


def download(folder: Path, names: list[str], force: bool = False) -> None:
    _sync.run(downloads._download_all(None, [(name, folder / name) for name in names], force))


def test_several_at_a_time_but_not_all(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(50)]
    download(tmp_path, names)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: f"{name}!" for name in names}
    assert _Reading.at_most == downloads._AT_ONCE


def test_no_files_at_all(tmp_path: Path) -> None:
    download(tmp_path, [])


def test_the_first_error_ends_it_and_leaves_no_draft(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="/missing"):
        download(
            tmp_path, ["f1", "f2", "f3", "slow1", "f4", "f5", "missing", *(f"slow{number}" for number in range(3, 90))]
        )
    assert {path.name for path in tmp_path.iterdir()} <= {"f1", "f2", "f3"}
    assert _Reading.under_way == 0


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(CliError, match="--force"):
        download(tmp_path, ["f"])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "mine")]
    download(tmp_path, ["f"], force=True)
    assert (tmp_path / "f").read_text() == "f!"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"x"],
        [bytes(10)],
        [bytes(200_000)],
        [b"x" + bytes(200_000) + b"y"],
        [bytes(65_536), bytes(65_536)],
        [bytes(131_072) + b"y", bytes(65_537), b"z"],
        [b"x" * 65_535, bytes(1024**2), b"y" * 70_000 + bytes(65_536)],
    ],
)
def test_holes_change_no_byte(pieces: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("xb") as file:
        for piece in pieces:
            downloads._write(file, piece)
        file.truncate()
    assert path.read_bytes() == b"".join(pieces)


def test_holes_are_not_written() -> None:
    class Counted(io.BytesIO):
        written = 0

        def write(self, data: Any) -> int:
            self.written += len(data)
            return super().write(data)

    file = Counted()
    downloads._write(file, b"x" + bytes(1024**2 - 1))
    assert file.written == 65_536


def test_a_table_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["Name", "Size"], [["a\nb\x7f", "1"], ["back\\slash é", "2"]], False)
    assert capsys.readouterr().out == "Name          Size\na\\nb\\x7f      1\nback\\slash é  2\n"
    print_table(["Name"], [["a\nb"]], True)
    assert '"a\\nb"' in capsys.readouterr().out
