"""`get` and `ls` of volumes and network file systems: patterns, awkward names, holes, and what is in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from acceptance_harness import Outcome, Platform, Program

Command = Callable[..., Outcome]


@pytest.fixture(params=["volume", "nfs"])
def command(request: pytest.FixtureRequest, platform: Platform, tmp_path: Path) -> Iterator[Command]:
    """`modal volume` or `modal nfs`, about a new one: `command("get", path, destination)`."""
    group, name = request.param, f"d-{tmp_path.name}"[-60:]
    platform.modal(group, "create", name).succeeded()

    def run(verb: str, *args: object) -> Outcome:
        return platform.modal(group, verb, name, *args)

    yield run
    platform.modal(group, "delete", name, "--yes")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to be uploaded. Every file holds its own path."""
    root = tmp_path / "tree"
    names = ["hello.txt", "help/h.txt", "help/deep/d.csv", "x/a.txt", "x/l", "x/sub/a.txt", "stars/*", "stars/other"]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def below(folder: Path) -> dict[str, str]:
    """The files of a directory and what they hold."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_patterns_keep_the_names(command: Command, tree: Path, tmp_path: Path) -> None:
    command("put", tree, "/").succeeded()

    def got(pattern: str) -> dict[str, str]:
        folder = tmp_path / f"got-{len(list(tmp_path.iterdir()))}"
        command("get", pattern, folder).succeeded()
        return below(folder)

    assert got("x/**") == {"a.txt": "x/a.txt", "l": "x/l", "sub/a.txt": "x/sub/a.txt"}
    assert got("/x/*") == got("x/**")
    assert got("h*") == {name: name for name in ("hello.txt", "help/h.txt", "help/deep/d.csv")}
    assert got("**/*.csv") == {"help/deep/d.csv": "help/deep/d.csv"}
    assert got("x/s*/a.txt") == {"sub/a.txt": "x/sub/a.txt"}
    assert got("hello.*") == {"hello.txt": "hello.txt"}
    assert len(got("**")) == 8


def test_a_pattern_goes_into_a_directory_that_is_there(command: Command, tree: Path, tmp_path: Path) -> None:
    command("put", tree, "/").succeeded()
    (tmp_path / "into").mkdir()
    command("get", "x/*", f"{tmp_path}/into/").succeeded()
    assert sorted(below(tmp_path / "into")) == ["a.txt", "l", "sub/a.txt"]
    command("get", "h*", tree / "x/a.txt").failed_with_one_sentence("x/a.txt", "directory")


def test_a_path_that_exists_is_no_pattern(command: Command, tree: Path, tmp_path: Path) -> None:
    command("put", tree, "/").succeeded()
    command("get", "stars/*", tmp_path / "star").succeeded()
    assert (tmp_path / "star").read_text() == "stars/*"
    assert command("get", "stars/*", "-").succeeded().out == "stars/*"
    assert "stars/other" not in command("ls", "stars/*").succeeded().out
    assert "stars/other" in command("ls", "stars/o*").succeeded().out


def test_a_pattern_that_matches_nothing(command: Command, tree: Path, tmp_path: Path) -> None:
    command("put", tree, "/").succeeded()
    for pattern in ("none*", "none/*", "hello.txt/*", "hello.txt/**"):
        command("get", pattern, tmp_path / "got").failed_with_one_sentence("matches", pattern)
        command("ls", pattern).failed_with_one_sentence("matches", pattern)
    assert not (tmp_path / "got").exists()
    command("get", "x/*", "-").failed_with_one_sentence("x/*", "stdout")


def test_what_is_in_the_way(command: Command, tree: Path, tmp_path: Path) -> None:
    command("put", tree, "/").succeeded()
    there = tmp_path / "got/x/sub/a.txt"
    there.mkdir(parents=True)
    command("get", "/", tmp_path / "got", "--force").failed_with_one_sentence("x/sub/a.txt", "directory")
    assert below(tmp_path / "got") == {}
    there.rmdir()
    there.write_text("old")
    command("get", "/", tmp_path / "got").failed_with_one_sentence("x/sub/a.txt", "--force")
    assert below(tmp_path / "got") == {"x/sub/a.txt": "old"}
    command("get", "/", tmp_path / "got", "--force").succeeded()
    assert below(tmp_path / "got") == below(tree)  # and so no draft of the time before


def test_names_as_long_as_they_can_be(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("a", "é" * 127 + "m", "z"):
        (folder / name).write_text(name)
    command("put", folder, "/").succeeded()
    command("get", "/", tmp_path / "got").succeeded()
    assert below(tmp_path / "got") == below(folder)


def test_runs_of_zeros_become_holes(command: Command, tmp_path: Path) -> None:
    size, source, got = 48 * 1024**2 + 5, tmp_path / "sparse", tmp_path / "got"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(20 * 1024**2 + 70_001)
        file.write(b"middle" * 30_000)
        file.truncate(size)
    command("put", source, "/sparse").succeeded()
    command("get", "sparse", got).succeeded()
    assert got.read_bytes() == source.read_bytes()
    assert got.stat().st_blocks * 512 < 1024**2
    assert command("get", "sparse", "-").succeeded().out == source.read_text()


def test_tables_escape_control_characters(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    names = ["a\nb", "c\x1b[31m", "d\te", "é 漢"]
    for name in names:
        (folder / name).touch()
    command("put", folder, "/").succeeded()
    lines = command("ls").succeeded().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [r"a\nb", r"c\x1b[31m", r"d\te", "é 漢"]
    assert len({line.index("file  ") for line in lines[1:]}) == 1
    assert command("get", "a\nb", "-").succeeded().out == ""


def test_json_has_the_names_as_they_are(platform: Platform, tmp_path: Path) -> None:
    name = f"j-{tmp_path.name}"[-60:]
    (tmp_path / "a\nb").touch()
    platform.modal("volume", "create", name).succeeded()
    platform.modal("volume", "put", name, tmp_path / "a\nb", "/").succeeded()
    [row] = json.loads(platform.modal("volume", "ls", name, "--json").succeeded().out)
    assert row["filename"] == "a\nb"
    platform.modal("volume", "delete", name, "--yes").succeeded()


def test_links_that_a_container_has_made(platform: Platform, program: Program, volume: str, tmp_path: Path) -> None:
    path = program(
        f"""
        import os
        import modal
        app = modal.App("links")

        @app.function(volumes={{"/cache": modal.Volume.from_name("{volume}")}})
        def fill():
            os.makedirs("/cache/hub/blobs")
            os.makedirs("/cache/hub/snapshots/abc")
            with open("/cache/hub/blobs/1f", "w") as file:
                file.write("weights")
            os.symlink("../../blobs/1f", "/cache/hub/snapshots/abc/model.bin")
            os.symlink("/etc/hostname", "/cache/hub/snapshots/abc/host")
            os.symlink("/hub/blobs", "/cache/hub/all")
        """
    )
    platform.modal("run", path).succeeded()
    got = platform.modal("volume", "get", volume, "hub", tmp_path / "hub").succeeded()
    assert "Left out 'hub/snapshots/abc/host'" in got.err
    assert (tmp_path / "hub/snapshots/abc/model.bin").readlink() == Path("../../blobs/1f")
    assert below(tmp_path / "hub") == dict.fromkeys(("blobs/1f", "snapshots/abc/model.bin", "all/1f"), "weights")
    platform.modal("volume", "get", volume, "hub/snapshots/abc/*.bin", tmp_path / "bin").succeeded()
    assert not (tmp_path / "bin/model.bin").is_symlink()
    assert below(tmp_path / "bin") == {"model.bin": "weights"}
