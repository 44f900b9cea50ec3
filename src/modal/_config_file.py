"""The file `.modal.toml`: reading it, and changing it so that all else in it stays as its owner wrote it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._runtime_context import is_local
from .exception import InvalidError


def path() -> Path:
    """`MODAL_CONFIG_PATH`, by default `~/.modal.toml`."""
    return Path(os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml").expanduser()


def read() -> dict[str, dict[str, Any]]:
    """The sections of the file; none when there is no file.

    Raises:
        InvalidError: it cannot be read, is not TOML, or is not made of sections.
    """
    import importlib

    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    sections: dict[str, dict[str, Any]] = _sections(parser.loads)
    return sections


@contextlib.contextmanager
def edited() -> Iterator[Any]:
    """Give the document to change: a mapping of sections that remembers comments and order. Stored on leaving.

    The file is replaced in one step and its mode is 0600, for it may hold a token. Of several who change it at once,
    each sees what the one before has stored.

    Raises:
        InvalidError: as `read`, or it cannot be written; nothing has changed then.
    """
    import tomlkit

    with _locked():
        document = _sections(tomlkit.parse) or tomlkit.document()
        yield document
        _replace(tomlkit.dumps(document))


def section_of(document: Any, name: str) -> Any:
    """The section of an edited document, made at its end when it is not there."""
    import tomlkit

    if name not in document:
        if document:
            document.add(tomlkit.nl())
        document.add(name, tomlkit.table())
    return document[name]


def _sections(parse: Any) -> Any:
    where = path()
    try:
        sections = parse(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise InvalidError(f"The configuration file {where} cannot be read: {error}.") from None
    except OSError as error:
        if isinstance(error, PermissionError) and not is_local():
            return {}  # code in a container has dropped its rights; it needs no configuration file
        raise InvalidError(f"The configuration file {where} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InvalidError(f"The configuration file {where} is not valid TOML: {error}.") from None
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise InvalidError(f"The configuration file {where}: {name!r} must be inside a section such as [default].")
    return sections


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Keep other writers away. The lock is the directory's own, so that nothing is left behind."""
    import fcntl

    try:
        directory = os.open(_target().parent, os.O_RDONLY)
    except OSError as error:
        raise InvalidError(f"The configuration file {path()} cannot be written: {error.strerror}.") from None
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks; the replacement is whole anyway
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _target() -> Path:
    """The file itself, where the path is a symbolic link to it."""
    return path().resolve()


def _replace(text: str) -> None:
    import tempfile

    target = _target()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".modal.toml.")  # with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise InvalidError(f"The configuration file {path()} cannot be written: {error.strerror}.") from None
