"""Dockerfile instructions of clients."""

from __future__ import annotations

import pytest

from intermodal.builder.instructions import Instruction, check_instructions, exec_form, parse
from modal.exception import InvalidError


def test_instructions_are_taken_apart_and_put_on_one_line() -> None:
    assert parse("run echo a") == [Instruction("RUN", "echo a")]
    assert parse("# comment\n\nENV A=1\n  RUN a && \\\n    # in between\n    b\r\n") == [
        Instruction("ENV", "A=1"),
        Instruction("RUN", "a &&     b"),
    ]


def test_flags_are_told_from_the_command() -> None:
    assert parse("RUN --network=none --mount=type=tmpfs,target=/t a --b")[0].split_flags() == (
        "--network=none --mount=type=tmpfs,target=/t",
        "a --b",
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("FROM alpine", "FROM cannot be used"),
        ("from alpine", "FROM cannot be used"),
        ("RUN a\nFROM alpine", "FROM cannot be used"),
        ("ONBUILD RUN a", "ONBUILD cannot be used"),
        ("RUN echo a\necho b", "'echo' is not a Dockerfile instruction"),
        ("RUN", "missing its arguments"),
        ("RUN a \\", "ends with a backslash"),
        ("RUN a \x00", "NUL"),
        ("\\\n \\\nx", "not a Dockerfile instruction"),
        ("RUN <<EOF\nRUN x\nEOF", "here-document"),
        ("RUN --network=none", "missing its command"),
    ],
)
def test_what_is_no_allowed_instruction_is_refused(command: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        parse(command)


@pytest.mark.parametrize(
    "flag",
    [
        "--mount=type=bind,from=x,source=/,target=/m",
        "--mount=type=cache,target=../../../etc",
        "--mount=type=cache,id=../../x,target=/c",
        "--mount=type=secret,id=x",
        "--mount=type=ssh",
        "--mount=type=tmpfs,type=bind,target=/x",
        "--mount=type=tmpfs,target=/x,from=y",
        '--mount="type=bind,target=/x"',
        "--mou\\nt=type=bind,target=/x",
        "--MOUNT=type=bind",
        "--network=host",
        "--security=insecure",
        "--mount type=bind",
        "\\\n--mount=type=bind,from=x,target=/m",
        "--",
    ],
)
def test_flags_that_reach_outside_the_image_are_refused(flag: str) -> None:
    with pytest.raises(InvalidError):
        parse(f"RUN {flag} true")


def test_a_layer_needs_an_instruction() -> None:
    with pytest.raises(InvalidError, match="empty"):
        check_instructions(["# nothing"])


def test_the_exec_form_is_a_list_of_words() -> None:
    assert exec_form(' ["a", "b c"]') == ["a", "b c"]
    assert exec_form("[ -f x ] && y") is None
    assert exec_form("[1]") is None
    assert exec_form("[]") is None
    assert exec_form("a") is None
