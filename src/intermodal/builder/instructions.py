"""Dockerfile instructions that clients send: taking them apart and refusing what must not run. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from modal.exception import InvalidError

KNOWN = frozenset(
    ["ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "RUN", "SHELL"]
    + ["STOPSIGNAL", "USER", "VOLUME", "WORKDIR"]
)
_REFUSED = {
    "FROM": "the base of an image is its first layer, and each image has one",
    "ONBUILD": "its triggers would run in builds that did not ask for them",
}
_FLAG = re.compile(r"--[a-z][a-z-]*(=\S*)?(\s+|\Z)")
_CONTINUED = re.compile(r"\\[ \t]*\Z")
_NETWORKS = ("--network=default", "--network=none")
_TMPFS = re.compile(r"--mount=type=tmpfs,(target|dst|destination)=/[A-Za-z0-9._/-]+\Z")


@dataclass(frozen=True)
class Instruction:
    """One instruction, on one line."""

    word: str  #: upper case, e.g. ``RUN``
    rest: str  #: everything after the word, flags included

    @property
    def text(self) -> str:
        return f"{self.word} {self.rest}"

    def split_flags(self) -> tuple[str, str]:
        """The leading ``--flag=value`` words, and what follows them."""
        end = 0
        while match := _FLAG.match(self.rest, end):
            end = match.end()
        return self.rest[:end].strip(), self.rest[end:]


def parse(command: str) -> list[Instruction]:
    """Take one string of the client apart. Comments and empty lines vanish, continued lines become one.

    Raises:
        InvalidError: a word that is no Dockerfile instruction, or one that is refused.
    """
    instructions: list[Instruction] = []
    pending = ""
    for line in command.replace("\r\n", "\n").split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        continued = _CONTINUED.search(line)
        pending += line[: continued.start()] if continued else line
        if not continued:
            instructions.append(_instruction(pending))
            pending = ""
    if pending:
        raise InvalidError(f"The image command {_short(command)} ends with a backslash, so its next line is missing.")
    return instructions


def parse_all(commands: Sequence[str]) -> list[Instruction]:
    """`parse` for a whole layer."""
    return [instruction for command in commands for instruction in parse(command)]


def check_instructions(commands: Sequence[str]) -> None:
    """Raise `InvalidError` unless `commands` hold at least one instruction and only allowed ones."""
    if not parse_all(commands):
        raise InvalidError("A layer of commands is empty.")


def _instruction(text: str) -> Instruction:
    parts = text.split(None, 1)
    if not parts:
        raise InvalidError("An image command consists of a backslash only.")
    word = parts[0].upper()
    if word in _REFUSED:
        raise InvalidError(f"{word} cannot be used in image commands: {_REFUSED[word]}.")
    if word not in KNOWN:
        raise InvalidError(f"{parts[0]!r} is not a Dockerfile instruction (in {_short(text)}).")
    if "\x00" in text:
        raise InvalidError(f"The image command {_short(text)} contains a NUL character.")
    rest = parts[1].strip() if len(parts) > 1 else ""
    if not rest:
        raise InvalidError(f"{word} is missing its arguments.")
    instruction = Instruction(word, rest)
    if word == "RUN":
        _check_run(instruction)
    return instruction


def _check_run(run: Instruction) -> None:
    """Mounts reach outside the image, so only those that hold nothing of the host are allowed."""
    flags, command = run.split_flags()
    if not command:
        raise InvalidError("RUN is missing its command.")
    if command.startswith("<<"):
        raise InvalidError("RUN with a here-document is not supported; use one command a line joined with &&.")
    for flag in flags.split():
        if flag not in _NETWORKS and not _TMPFS.match(flag):
            raise InvalidError(f"RUN {flag} is not supported in image commands.")
    if command.startswith("--"):
        raise InvalidError(f"RUN {command.split()[0]} is not supported in image commands.")


def exec_form(text: str) -> list[str] | None:
    """The words of ``["a", "b"]``, or None when `text` is not in that form."""
    if not text.lstrip().startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return words
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
