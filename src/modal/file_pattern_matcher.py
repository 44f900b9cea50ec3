"""Choosing files by patterns in the syntax of `.dockerignore`.

A pattern matches a path, or any directory above it: `node_modules` excludes everything inside. The last pattern
that matches decides; one that begins with `!` takes the path back out. Paths are relative to the directory that is
being added, with `/` between their parts.

    *      any characters but `/`
    ?      one character but `/`
    **     any number of directories, also none
    [a-z]  one character of a class; `[^a-z]` one that is not in it
    \\c     the character c itself
    !      at the start: an exception
    #      at the start of a line: a comment

A leading or trailing `/` has no meaning: every pattern is anchored at the root, so `*.py` matches only there and
`**/*.py` at any depth.
"""

from __future__ import annotations

import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Callable, Optional, Union

#: What every `ignore` parameter takes: patterns, or a predicate that says True for a path to leave out.
Ignore = Union[Sequence[str], Callable[[Path], bool]]


class _AbstractPatternMatcher(ABC):
    """A predicate over paths that `~` inverts."""

    @abstractmethod
    def __call__(self, file_path: PurePath) -> bool:
        """Say whether `file_path`, relative to the directory that is being added, matches."""

    def __invert__(self) -> _AbstractPatternMatcher:
        return _Inverted(self)

    def covers_directory(self, directory: PurePath) -> bool:
        """Say whether everything below `directory` is sure to match, so that it need not be walked."""
        return False


class _Inverted(_AbstractPatternMatcher):
    def __init__(self, matcher: _AbstractPatternMatcher) -> None:
        self._matcher = matcher

    def __call__(self, file_path: PurePath) -> bool:
        return not self._matcher(file_path)

    def __invert__(self) -> _AbstractPatternMatcher:
        return self._matcher

    def __repr__(self) -> str:
        return f"~{self._matcher!r}"


class _Pattern:
    """One compiled pattern."""

    __slots__ = ("is_exception", "regex", "text")

    def __init__(self, text: str, is_exception: bool) -> None:
        self.text = text
        self.is_exception = is_exception
        self.regex = re.compile(_translate(text), re.DOTALL)


class FilePatternMatcher(_AbstractPatternMatcher):
    """Matches paths against patterns in `.dockerignore` syntax. Called with a path, it says whether the path matches.

    ```python
    matcher = modal.FilePatternMatcher("**/*.py", "!**/test_*.py")
    matcher(Path("package/module.py"))  # True
    (~matcher)(Path("README.md"))  # True
    ```
    """

    def __init__(self, *pattern: str) -> None:
        """Make a matcher of patterns (str); later ones win.

        Raises:
            ValueError: for a `!` without a pattern after it, an unclosed `[` or a trailing backslash.
            TypeError: for a pattern that is no string.
        """
        self._file: Optional[Path] = None
        self._compiled: Optional[list[_Pattern]] = _compile(pattern)
        self._patterns = pattern

    @classmethod
    def from_file(cls, file_path: Union[str, Path]) -> FilePatternMatcher:
        """Make a matcher of the lines of a file (str or Path, `~` is expanded).

        The file is read when the matcher is first used; then a missing file is a FileNotFoundError, and an illegal
        pattern a ValueError that names the file.
        """
        matcher = cls()
        matcher._file = Path(file_path).expanduser()
        matcher._compiled = None
        return matcher

    def __call__(self, file_path: PurePath) -> bool:
        path = posixpath.normpath(PurePath(file_path).as_posix()).lstrip("/")
        if path == ".":
            return False
        prefixes = _prefixes(path)
        for pattern in reversed(self._load()):
            if any(pattern.regex.fullmatch(prefix) for prefix in prefixes):
                return not pattern.is_exception
        return False

    def covers_directory(self, directory: PurePath) -> bool:
        """Say whether everything below `directory` matches: it does, and no exception could take a file back out."""
        return not any(pattern.is_exception for pattern in self._load()) and self(directory)

    def _load(self) -> list[_Pattern]:
        if self._compiled is None:
            assert self._file is not None
            text = self._file.read_text(encoding="utf-8-sig")
            try:
                self._compiled = _compile(text.splitlines())
            except ValueError as error:
                raise ValueError(f"{self._file}: {error}") from None
        return self._compiled

    def __repr__(self) -> str:
        if self._file is not None:
            return f"FilePatternMatcher.from_file({str(self._file)!r})"
        return f"FilePatternMatcher({', '.join(map(repr, self._patterns))})"


class _WorkingDirectoryDockerignore(_AbstractPatternMatcher):
    """The patterns of `.dockerignore` in the directory that the process is in at the first use, if there is one."""

    def __init__(self) -> None:
        self._matcher: Optional[FilePatternMatcher] = None

    def _load(self) -> FilePatternMatcher:
        if self._matcher is None:
            path = Path(".dockerignore").absolute()
            self._matcher = FilePatternMatcher.from_file(path) if path.is_file() else FilePatternMatcher()
        return self._matcher

    def __call__(self, file_path: PurePath) -> bool:
        return self._load()(file_path)

    def covers_directory(self, directory: PurePath) -> bool:
        return self._load().covers_directory(directory)

    def __repr__(self) -> str:
        return "AUTO_DOCKERIGNORE"


def _compile(lines: Sequence[str]) -> list[_Pattern]:
    patterns = []
    for line in lines:
        if not isinstance(line, str):
            raise TypeError(f"A pattern must be a string, not {line!r}.")
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        is_exception = text.startswith("!")
        if is_exception:
            text = text[1:].strip()
            if not text:
                raise ValueError('Illegal exclusion pattern "!": write the pattern to take back out after the "!".')
        text = posixpath.normpath(text).lstrip("/")
        patterns.append(_Pattern(text, is_exception))
    return patterns


def _prefixes(path: str) -> list[str]:
    """`a/b/c` -> [`a/b/c`, `a`, `a/b`]."""
    parts = path.split("/")
    return [path, *("/".join(parts[:count]) for count in range(1, len(parts)))]


def _translate(pattern: str) -> str:
    """The regular expression of a cleaned pattern."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not pattern.startswith("*", at):
                out.append("[^/]*")
                continue
            at += 1
            if pattern.startswith("/", at):
                at += 1
            out.append(".*" if at == len(pattern) else "(?:.*/)?")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            expression, at = _translate_class(pattern, at)
            out.append(expression)
        elif char == "\\":
            if at == len(pattern):
                raise ValueError(f"Illegal pattern {pattern!r}: it ends with a backslash.")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _translate_class(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression of the character class whose `[` is just before `at`, and where it ends."""
    illegal = ValueError(f"Illegal pattern {pattern!r}: a character class needs a closing ']' and valid ranges.")
    negated = pattern.startswith("^", at)
    at += negated

    def take(at: int) -> tuple[str, int]:
        escaped = pattern.startswith("\\", at)
        at += escaped
        if at >= len(pattern) or (not escaped and pattern[at] in "-]"):
            raise illegal
        return pattern[at], at + 1

    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = take(at)
        high = low
        if pattern.startswith("-", at):
            high, at = take(at + 1)
        if high < low:
            raise illegal
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", at + 1


#: Matches everything but `.py` files: the default of `Image.add_local_python_source`.
NON_PYTHON_FILES = ~FilePatternMatcher("**/*.py")

#: Follow `.dockerignore` in the working directory. It is a marker: `as_ignore` makes a fresh reader of it each time.
AUTO_DOCKERIGNORE: _AbstractPatternMatcher = _WorkingDirectoryDockerignore()


def as_ignore(ignore: Ignore) -> Callable[[Path], bool]:
    """Turn the value of an `ignore` parameter into a predicate.

    Raises:
        ValueError: for an illegal pattern.
        TypeError: for a value that is neither patterns nor callable. One string is refused, since it is a sequence of
            its characters.
    """
    if ignore is AUTO_DOCKERIGNORE:
        return _WorkingDirectoryDockerignore()
    if callable(ignore):
        return ignore
    if isinstance(ignore, (str, bytes)) or not isinstance(ignore, Sequence):
        raise TypeError(f"ignore must be a list of patterns or a callable, not {ignore!r}.")
    return FilePatternMatcher(*ignore)
