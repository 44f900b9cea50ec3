"""How the command line shows values of users."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from modal.cli.tables import printable
from modal.cli.values import Count, Unreadable, echo_json, unpickled, written
from modal.exception import DeserializationError


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no\nrepr")


class Lying(dict):
    def items(self):
        raise LookupError("no items")


def invalid(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def as_json(value: object, capsys: pytest.CaptureFixture[str]) -> object:
    echo_json([{"key": "before", "value": 1}, {"key": "it", "value": value}])
    first, second = json.loads(capsys.readouterr().out, parse_constant=invalid)
    assert first == {"key": "before", "value": 1}
    return second["value"]


def circle() -> list[object]:
    made: list[object] = []
    made.append(made)
    return made


def nested(depth: int) -> list[object]:
    made: list[object] = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize("value", [None, True, 1.5, "é\ud800\x1b", [1, [2]], {"a": {"b": None}}], ids=ascii)
def test_what_json_can_write_stays_as_it_is(value, capsys):
    assert as_json(value, capsys) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (float("nan"), "nan"),
        ([1, float("-inf")], "[1, -inf]"),
        ({float("nan"): 1}, "{nan: 1}"),
        ({"in": b"x"}, {"in": "b'x'"}),
        (circle(), "[[...]]"),
        (Silent(), "<cannot be written: RuntimeError: no repr>"),
        ([Silent()], ["<cannot be written: RuntimeError: no repr>"]),
        (Lying(a=1), "{'a': 1}"),
    ],
    ids=["tuple-key", "nan", "inside", "nan-key", "bytes", "circle", "silent", "silent-inside", "lying"],
)
def test_what_json_cannot_write_becomes_its_repr(value, shown, capsys):
    assert as_json(value, capsys) == shown


def test_something_nested_too_deeply_for_json_is_still_shown(capsys):
    assert str(as_json(nested(50_000), capsys)).startswith("<cannot be written: RecursionError")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 'é' \\ 日", "plain 'é' \\ 日"),
        ("\x1b[2J\n\t\x9b\x7f", r"\x1b[2J\n\t\x9b\x7f"),
        ("\ud800\udc80", r"\ud800\udc80"),
        ("\u202eevil", r"\u202eevil"),
        ("", ""),
    ],
    ids=ascii,
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


def test_a_placeholder_is_one_short_line():
    def load(data: bytes) -> object:
        raise DeserializationError("long") from ValueError("first\n\x1b" + " word" * 1000)

    shown = unpickled(b"", load)
    assert isinstance(shown, Unreadable)
    assert str(shown) == repr(shown) == written(shown)
    assert str(shown).startswith(r"<cannot be unpickled here: ValueError: first \x1b word word")
    assert str(shown).endswith(" …>")
    assert len(str(shown)) < 200


def test_a_placeholder_without_a_cause_says_what_is_known():
    def load(data: bytes) -> object:
        raise DeserializationError("The data is not a payload.")

    assert str(unpickled(b"", load)).endswith("here: DeserializationError: The data is not a payload.>")


@pytest.mark.parametrize("given", ["abc", "0", "-1", "1.5", ""])
def test_a_count_says_what_it_must_be(given):
    with pytest.raises(click.BadParameter) as caught:
        Count(min=1).convert(given, None, None)
    assert caught.value.message == f"{given!r} is not a whole number of at least 1."


def test_a_count_is_never_too_large_for_a_slice():
    assert Count(min=1).convert("7", None, None) == 7
    assert Count(min=0).convert("9" * 30, None, None) + 1 == sys.maxsize


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("utf-8", "é日\\ud800\x1b[1m\n".encode()), ("latin-1", b"\xe9\\u65e5\\ud800\x1b[1m\n")],
)
def test_text_is_printed_whatever_stdout_can_encode(encoding, printed):
    code = r"from modal.cli.values import echo_text; echo_text('é日\ud800\x1b[1m')"
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True, timeout=60)
    assert done.stdout == printed
