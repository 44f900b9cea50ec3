"""Reading and checking the variables of a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Union

from ..exception import InvalidError, NotFoundError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[^\s=#'"]+)\s*
        (?:=[ \t]*(?:'(?P<single>(?:\\'|[^'])*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<bare>(?!['"])[^\r\n]*)))?
        [ \t]*(?P<rest>[^\r\n]*)(?:\r?\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?\r?\n|[ \t]*(?:#[^\n]*)?\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "b": "\b", "a": "\a", "\\": "\\", "'": "'", '"': '"'}
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def check_env(variables: Mapping[str, Optional[str]], what: str) -> dict[str, str]:
    """Return the variables without those that are None.

    Raises:
        InvalidError: for a name that is no environment variable's, or a value that is no string. The message never
            holds a value.
    """
    if not isinstance(variables, Mapping):
        raise InvalidError(f"{what} takes a dict of strings, not {type(variables).__name__}.")
    checked: dict[str, str] = {}
    for name, value in variables.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidError(
                f"{what}: {name!r} is no name of an environment variable; use letters, digits and underscores."
            )
        if value is None:
            continue
        if not isinstance(value, str):
            raise InvalidError(f"{what}: the value of {name} must be a string, not {type(value).__name__}.")
        if "\0" in value:
            raise InvalidError(f"{what}: the value of {name} contains a zero byte.")
        checked[name] = value
    return checked


def find_dotenv(start: Union[str, os.PathLike[str], None], filename: str) -> Path:
    """Find `filename` in the directory `start` (or of the file `start`; default: the working directory) or above.

    Raises:
        NotFoundError: if there is none.
    """
    place = Path.cwd() if start is None else Path(start).expanduser().absolute()
    if not place.exists():
        raise NotFoundError(f"There is no file or directory {str(place)!r} to look for {filename!r} from.")
    if place.is_file() and place.name == filename:
        return place
    directory = place.parent if place.is_file() else place
    for candidate in (directory, *directory.parents):
        if (candidate / filename).is_file():
            return candidate / filename
    raise NotFoundError(f"There is no file {filename!r} in {str(directory)!r} or a directory above it.")


def read_dotenv(path: Path) -> dict[str, str]:
    """Read the variables of a `.env` file: `NAME=value` lines, quotes, `export`, comments and `${NAME}` references.

    Raises:
        InvalidError: if the file cannot be read or has a line that is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{str(path)!r} cannot be read as text: {error}.") from None
    variables: dict[str, str] = {}
    at = 0
    while at < len(text):
        skipped = _SKIPPED.match(text, at)
        if skipped is not None and skipped.end() > at:
            at = skipped.end()
            continue
        line = text.count("\n", 0, at) + 1
        match = _LINE.match(text, at)
        rest = match["rest"].strip() if match is not None else ""
        if match is None or (rest and not rest.startswith("#")):
            raise InvalidError(f"{path}, line {line}: expected NAME=value, with matching quotes.")
        if "=" in match[0][match.end("name") - match.start() :]:
            variables[match["name"]] = _value(match, variables)
        at = match.end()
    return check_env(variables, str(path))


def _value(match: re.Match[str], known: Mapping[str, str]) -> str:
    if match["single"] is not None:
        return match["single"].replace("\\'", "'").replace("\\\\", "\\")
    if match["double"] is not None:
        # What is no escape stays as it is.
        value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match["double"], flags=re.DOTALL)
    else:
        bare = match["bare"] or ""
        # `COLOUR=#fff` is a value; a comment has a blank before it.
        is_comment = bare.startswith("#") and match.string[match.start("bare") - 1] != "="
        value = "" if is_comment else re.sub(r"\s+#.*", "", bare).strip()

    def look_up(reference: re.Match[str]) -> str:
        name = reference["name"]
        return known.get(name, os.environ.get(name, reference["default"] or ""))

    return _REFERENCE.sub(look_up, value)
