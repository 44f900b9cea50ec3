from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from intermodal.model.errors import BadImage
from intermodal.node.image_paths import ImagePaths


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    top, base = tmp_path / "top", tmp_path / "base"
    for directory in (top / "etc", base / "usr/lib", base / "etc/deep", base / "data"):
        directory.mkdir(parents=True)
    (base / "lib").symlink_to("usr/lib")
    (base / "abs").symlink_to("/usr/lib")
    (base / "out").symlink_to("../../../../usr")
    (base / "loop").symlink_to("loop")
    (base / "data/file").write_text("below")
    (base / "etc/deep/x").write_text("")
    return top, base


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/lib/a", "/usr/lib/a"),
        ("/abs/a/b", "/usr/lib/a/b"),
        ("/out/new", "/usr/new"),
        ("/new/dir", "/new/dir"),
        ("/lib/../x", "/usr/x"),
    ],
)
def test_links_are_followed_within_the_image(layers: tuple[Path, Path], path: str, expected: str) -> None:
    assert ImagePaths(layers).resolve_directory(PurePosixPath(path)) == PurePosixPath(expected)


def test_circles_and_files_are_refused(layers: tuple[Path, Path]) -> None:
    with pytest.raises(BadImage, match="circles"):
        ImagePaths(layers).resolve_directory(PurePosixPath("/loop/x"))
    with pytest.raises(BadImage, match="'/data/file' is a file"):
        ImagePaths(layers).resolve_directory(PurePosixPath("/data/file/x"))


def test_a_file_of_an_upper_layer_hides_a_directory_below(layers: tuple[Path, Path]) -> None:
    (layers[0] / "data").write_text("a file now")
    image = ImagePaths(layers)
    assert image.lstat(PurePosixPath("/data/file")) is None
    found = image.lstat(PurePosixPath("/data"))
    assert found is not None
    assert found[0] == layers[0] / "data"


def test_a_link_of_a_layer_is_never_followed_on_this_machine(layers: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("")
    (layers[1] / "data/link").symlink_to(tmp_path / "secret")
    (layers[0] / "data/link").mkdir(parents=True)
    assert ImagePaths(layers).lstat(PurePosixPath("/data/link/file")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_whiteouts_and_opaque_directories_hide_what_is_below(layers: tuple[Path, Path]) -> None:
    top = layers[0]
    (top / "data").mkdir()
    os.mknod(top / "data/file", 0o020000, os.makedev(0, 0))
    (top / "etc/deep").mkdir()
    try:
        os.setxattr(top / "etc/deep", "trusted.overlay.opaque", b"y")
    except OSError:
        pytest.skip("this file system has no trusted attributes")
    image = ImagePaths(layers)
    assert image.lstat(PurePosixPath("/data/file")) is None
    assert image.lstat(PurePosixPath("/etc/deep/x")) is None
    assert image.lstat(PurePosixPath("/usr/lib")) is not None
