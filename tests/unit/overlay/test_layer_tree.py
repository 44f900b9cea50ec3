"""Looking into layers without mounting them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from intermodal.builder.probe import probe_python
from intermodal.overlay.layer_tree import LayerTree


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        (layer / "usr" / "local" / "bin").mkdir(parents=True)
    return top, bottom


def test_upper_layers_hide_lower_ones(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    (bottom / "a").write_text("old")
    (top / "a").write_text("new")
    (bottom / "b").write_text("below")
    tree = LayerTree(layers)
    assert tree.find("/a") == top / "a"
    assert tree.find("/b") == bottom / "b"
    assert tree.find("/c") is None


def test_links_are_followed_inside_the_image_only(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    (bottom / "etc").mkdir()
    (bottom / "etc" / "passwd").write_text("of the image")
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "relative").symlink_to("../../../etc/passwd")
    (top / "directory").symlink_to("etc")
    (top / "loop").symlink_to("loop")
    tree = LayerTree(layers)
    for path in ("/absolute", "/relative", "/directory/passwd", "/../etc/passwd"):
        assert tree.find(path) == bottom / "etc" / "passwd"
    assert tree.find("/loop") is None


def test_a_file_in_place_of_a_directory_hides_what_was_in_it(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    (bottom / "d").mkdir()
    (bottom / "d" / "f").write_text("x")
    (top / "d").write_text("a file")
    assert LayerTree(layers).find("/d/f") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make whiteouts")
def test_whiteouts_and_opaque_directories_hide(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    (bottom / "gone").write_text("x")
    os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
    for layer in layers:
        (layer / "opaque").mkdir()
    (bottom / "opaque" / "f").write_text("x")
    os.setxattr(top / "opaque", "trusted.overlay.opaque", b"y")
    tree = LayerTree(layers)
    assert tree.find("/gone") is None
    assert tree.find("/opaque/f") is None


def test_python_is_found_on_the_path_with_its_exact_version(layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    binaries = bottom / "usr" / "local" / "bin"
    (binaries / "python3.11").write_bytes(b"\x7fELF 3.11.4\x00 2.3.11.9\x00 3.11.7\x00"[0:5] + b"\x003.11.7\x00")
    (top / "usr" / "local" / "bin" / "python").symlink_to("python3.11")
    assert probe_python(LayerTree(layers), "/nowhere:/usr/local/bin") == ("/usr/local/bin/python", "3.11.7")
    header = bottom / "usr" / "local" / "include" / "python3.11"
    header.mkdir(parents=True)
    (header / "patchlevel.h").write_text('#define PY_VERSION      "3.11.8"\n')
    assert probe_python(LayerTree(layers), "") == ("/usr/local/bin/python", "3.11.8")


def test_an_image_without_python_has_none(layers: tuple[Path, Path]) -> None:
    assert probe_python(LayerTree(layers), "/usr/bin:relative") == ("", "")
