"""`modal.FilePatternMatcher` against the dockerignore rules and a slow reference model."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modal.file_pattern_matcher import AUTO_DOCKERIGNORE, NON_PYTHON_FILES, FilePatternMatcher, as_ignore


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["*.py"], "foo.py", True),
        (["*.py"], "sub/foo.py", False),
        (["*/*.py"], "sub/foo.py", True),
        (["**/*.py"], "foo.py", True),
        (["**/*.py"], "a/b/c/foo.py", True),
        (["**/*.py"], "a/b/c/foo.pyc", False),
        (["**"], "anything/at/all", True),
        (["a/**"], "a/b", True),
        (["a/**"], "a", False),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/x/y/b", True),
        (["a/**/b"], "a/xb", False),
        (["**/b/**"], "a/b/c", True),
        (["node_modules"], "node_modules/left-pad/index.js", True),
        (["node_modules"], "sub/node_modules/x", False),
        (["**/node_modules"], "sub/node_modules/x/y", True),
        (["dir/"], "dir/file", True),
        (["/dir"], "dir/file", True),
        (["./dir"], "dir", True),
        (["a/./b/../c"], "a/c", True),
        (["?.txt"], "a.txt", True),
        (["?.txt"], "ab.txt", False),
        (["?"], "/", False),
        (["a?b"], "a/b", False),
        (["[a-c].txt"], "b.txt", True),
        (["[a-c].txt"], "d.txt", False),
        (["[^a-c].txt"], "d.txt", True),
        (["[^a-c].txt"], "a.txt", False),
        (["a[^x]b"], "a/b", False),
        (["[\\]].txt"], "].txt", True),
        (["[!a]"], "!", True),
        (["\\*.txt"], "*.txt", True),
        (["\\*.txt"], "a.txt", False),
        (["\\#file"], "#file", True),
        (["# comment"], "# comment", False),
        (["", "   "], "a", False),
        (["  spaced.txt  "], "spaced.txt", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README.md"], "other.md", True),
        (["!README.md", "*.md"], "README.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["dir", "!dir/keep"], "dir/keep", False),
        (["dir", "!dir/keep"], "dir/keep/inside", False),
        (["dir", "!dir/keep"], "dir/drop", True),
        (["!  spaced"], "spaced", False),
        (["a.b"], "axb", False),
        (["(x)+"], "(x)+", True),
        (["."], "a", False),
        ([], "a", False),
        (["ünï*"], "ünïcode", True),
        (["a\nb"], "a\nb", True),
        (["**"], "a\nb", True),
    ],
)
def test_patterns_follow_the_dockerignore_rules(patterns: list[str], path: str, expected: bool) -> None:
    assert FilePatternMatcher(*patterns)(Path(path)) is expected


def test_inverting_twice_gives_the_matcher_back() -> None:
    matcher = FilePatternMatcher("*.py")
    assert (~matcher)(Path("a.txt"))
    assert not (~matcher)(Path("a.py"))
    assert (~~matcher)(Path("a.py"))


@pytest.mark.parametrize("pattern", ["!", "! ", "[", "[]", "[a", "[a-]", "[b-a]", "x\\", "[^]", "[a\\"])
def test_an_illegal_pattern_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="Illegal"):
        FilePatternMatcher(pattern)


def test_a_pattern_that_is_no_string_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="must be a string"):
        FilePatternMatcher(3)  # type: ignore[arg-type]


def test_a_pattern_file_is_read_when_first_used(tmp_path: Path) -> None:
    file = tmp_path / "ignore"
    matcher = FilePatternMatcher.from_file(file)
    with pytest.raises(FileNotFoundError):
        matcher(Path("a.txt"))
    file.write_text("\ufeff# comment\n\n*.txt\r\n!b.txt\n", encoding="utf-8")
    assert matcher(Path("a.txt"))
    assert not matcher(Path("b.txt"))
    file.unlink()
    assert matcher(Path("c.txt"))


def test_an_illegal_pattern_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ignore"
    file.write_text("!\n")
    with pytest.raises(ValueError, match=str(file)):
        FilePatternMatcher.from_file(str(file))(Path("a"))


def test_the_default_of_python_sources_keeps_python_files_only() -> None:
    assert not NON_PYTHON_FILES(Path("a/b.py"))
    assert NON_PYTHON_FILES(Path("a/b.json"))


def test_the_dockerignore_of_the_working_directory_is_looked_up_at_each_use(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not as_ignore(AUTO_DOCKERIGNORE)(Path("a.txt"))
    (tmp_path / ".dockerignore").write_text("*.txt\n")
    assert as_ignore(AUTO_DOCKERIGNORE)(Path("a.txt"))


def test_an_ignore_value_is_patterns_or_a_callable() -> None:
    assert as_ignore(["*.txt"])(Path("a.txt"))
    assert as_ignore(lambda path: path.name == "x")(Path("x"))
    for wrong in ("*.txt", 7, None):
        with pytest.raises(TypeError, match="list of patterns or a callable"):
            as_ignore(wrong)  # type: ignore[arg-type]


def test_a_directory_is_covered_only_when_no_exception_could_take_a_file_back() -> None:
    assert FilePatternMatcher("venv").covers_directory(Path("venv"))
    assert not FilePatternMatcher("venv", "!venv/keep").covers_directory(Path("venv"))
    assert not (~FilePatternMatcher("**/*.py")).covers_directory(Path("venv"))


NAME = st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
SEGMENT = st.one_of(NAME, st.text(alphabet="ab.*?", min_size=1, max_size=3), st.just("**")).filter(
    lambda segment: segment not in (".", "..") and (segment == "**" or "**" not in segment)
)
PATTERN = st.tuples(st.sampled_from(["", "!"]), st.lists(SEGMENT, min_size=1, max_size=4)).map(
    lambda pair: pair[0] + "/".join(pair[1])
)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda parts: PurePosixPath(*parts))


def segment_matches(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(segment_matches(pattern[1:], name[count:]) for count in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and segment_matches(pattern[1:], name[1:])


def segments_match(pattern: list[str], names: list[str]) -> bool:
    """The rules, segment by segment: `**` stands for any number of names, but at the end for at least one."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        least = 1 if len(pattern) == 1 else 0
        return any(segments_match(pattern[1:], names[count:]) for count in range(least, len(names) + 1))
    return bool(names) and segment_matches(pattern[0], names[0]) and segments_match(pattern[1:], names[1:])


def reference(patterns: list[str], path: PurePosixPath) -> bool:
    matched = False
    parts = list(path.parts)
    for pattern in patterns:
        segments = pattern.lstrip("!").split("/")
        if any(segments_match(segments, parts[:count]) for count in range(1, len(parts) + 1)):
            matched = not pattern.startswith("!")
    return matched


@settings(max_examples=400, deadline=None)
@given(st.lists(PATTERN, max_size=4), PATH)
def test_the_matcher_agrees_with_the_reference_model(patterns: list[str], path: PurePosixPath) -> None:
    matcher = FilePatternMatcher(*patterns)
    assert matcher(path) is reference(patterns, path)
    assert (~matcher)(path) is not reference(patterns, path)


@settings(max_examples=200, deadline=None)
@given(st.lists(PATTERN, max_size=3), PATH, NAME)
def test_a_covered_directory_matches_whatever_is_inside(patterns, directory, name) -> None:
    matcher = FilePatternMatcher(*patterns)
    if matcher.covers_directory(directory):
        assert matcher(directory / name)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12), st.text(alphabet="ab/[]^-*\\", min_size=1, max_size=6))
def test_any_text_is_a_pattern_or_a_value_error(pattern: str, path: str) -> None:
    try:
        matcher = FilePatternMatcher(pattern)
    except ValueError:
        return
    assert matcher(PurePosixPath(path)) in (True, False)
