from __future__ import annotations

import pytest

from intermodal.volumes.globs import Glob

PATHS = ("a", "a.txt", "x", "x/a.txt", "x/y", "x/y/a.txt", "x/y/z/a.txt", "[b]")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a", "a.txt", "x", "[b]"]),
        ("*.txt", ["a.txt"]),
        ("a", ["a"]),
        ("?", ["a", "x"]),
        ("[!a]", ["x"]),
        ("[[]b]", ["[b]"]),
        ("x/*", ["x/a.txt", "x/y"]),
        ("x/**", ["x", "x/a.txt", "x/y", "x/y/a.txt", "x/y/z/a.txt"]),
        ("**/a.txt", ["a.txt", "x/a.txt", "x/y/a.txt", "x/y/z/a.txt"]),
        ("**/y/**/a.txt", ["x/y/a.txt", "x/y/z/a.txt"]),
        ("x/**/**/a.txt", ["x/a.txt", "x/y/a.txt", "x/y/z/a.txt"]),
        ("**", list(PATHS)),
    ],
)
def test_what_a_pattern_matches(pattern: str, expected: list[str]) -> None:
    assert [path for path in PATHS if Glob(pattern).matches(path)] == expected


@pytest.mark.parametrize(
    ("pattern", "top"), [("*", ""), ("a*", ""), ("x/y/*.txt", "x/y"), ("x/y*/z", "x"), ("x/**", "x"), ("a/b", "a")]
)
def test_the_directory_that_has_everything_that_matches(pattern: str, top: str) -> None:
    assert Glob(pattern).top == top
